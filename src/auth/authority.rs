//! A certificate authority for development and for clusters that have none: made once, with a
//! certificate for the coordinator and one for each caller.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::{Span, Zoned};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use super::{Caller, Error, certificate};

/// How long certificates are valid, in days; the authority's own four times as long.
const DAYS: i32 = 365;

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// Configuration of the coordinator.
    pub server: PathBuf,
    /// Configuration of each caller, in the order in which they were asked for.
    pub callers: Vec<PathBuf>,
}

/// Makes an authority in `folder`, a certificate for a coordinator that is reached under `hosts`
/// (names or addresses), and one for each caller; with each a configuration file that names its
/// files. Keys can be read by their owner only.
///
/// # Errors
/// [`Error::Exists`] if there is an authority, [`Error::File`], [`Error::Make`] for a host that is
/// no name.
pub fn make(folder: &Path, hosts: &[String], callers: &[Caller]) -> Result<Made, Error> {
    fs::create_dir_all(folder).map_err(Error::file("make", folder))?;
    let folder = fs::canonicalize(folder).map_err(Error::file("find", folder))?;
    let files = Files { folder };
    let key = KeyPair::generate()?;
    let mut params = params("Palimpsest development authority", 4 * DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = params.self_signed(&key)?;
    files.write("ca.key", &key.serialize_pem(), 0o600)?;
    files.write("ca.pem", &ca.pem(), 0o644)?;
    let issuer = Issuer::new(params, key);

    let mut params = CertificateParams::new(hosts.to_vec())?;
    complete(&mut params, "palimpsest coordinator", DAYS);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    files.certify("server", &params, &issuer)?;
    let settings = format!(
        "[serve]\ntls_certificate = {}\ntls_key = {}\nclient_ca = {}\n",
        files.quoted("server.pem"),
        files.quoted("server.key"),
        files.quoted("ca.pem"),
    );
    let server = files.write("server.toml", &settings, 0o644)?;

    let mut made = Vec::new();
    let host = hosts.first().map_or("localhost", String::as_str);
    for caller in callers {
        let name = format!("{}-{}", caller.role, caller.principal);
        let mut params = params_of(caller)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        files.certify(&name, &params, &issuer)?;
        let (section, address) = match caller.role {
            super::Role::Worker => ("worker", "coordinator"),
            _ => ("client", "server"),
        };
        let settings = format!(
            "[{section}]\n{address} = \"https://{host}:7461\"\nca = {}\ncertificate = {}\nkey = {}\n",
            files.quoted("ca.pem"),
            files.quoted(&format!("{name}.pem")),
            files.quoted(&format!("{name}.key")),
        );
        made.push(files.write(&format!("{name}.toml"), &settings, 0o644)?);
    }
    Ok(Made {
        server,
        callers: made,
    })
}

fn params(name: &str, days: i32) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    complete(&mut params, name, days);
    Ok(params)
}

fn params_of(caller: &Caller) -> Result<CertificateParams, Error> {
    let mut params = params(&caller.principal, DAYS)?;
    let uri = certificate::uri(caller).try_into()?;
    params.subject_alt_names.push(SanType::URI(uri));
    Ok(params)
}

fn complete(params: &mut CertificateParams, name: &str, days: i32) {
    params.distinguished_name.push(DnType::CommonName, name);
    // From yesterday, for clocks that are behind.
    let day = |days: i32| {
        let date = Zoned::now().date().saturating_add(Span::new().days(days));
        date_time_ymd(date.year().into(), date.month() as u8, date.day() as u8)
    };
    params.not_before = day(-1);
    params.not_after = day(days);
}

struct Files {
    folder: PathBuf,
}

impl Files {
    /// Writes a file that is not there yet.
    fn write(&self, name: &str, text: &str, mode: u32) -> Result<PathBuf, Error> {
        let path = self.folder.join(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        match options.open(&path) {
            Ok(mut file) => file
                .write_all(text.as_bytes())
                .map_err(Error::file("write", &path))?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists { path });
            }
            Err(error) => return Err(Error::file("write", path)(error)),
        }
        Ok(path)
    }

    fn certify(
        &self,
        name: &str,
        params: &CertificateParams,
        issuer: &Issuer<'_, KeyPair>,
    ) -> Result<(), Error> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, issuer)?;
        self.write(&format!("{name}.key"), &key.serialize_pem(), 0o600)?;
        self.write(&format!("{name}.pem"), &certificate.pem(), 0o644)?;
        Ok(())
    }

    /// A path as TOML has it.
    fn quoted(&self, name: &str) -> String {
        let path = self.folder.join(name);
        // What JSON escapes, TOML's basic strings escape in the same way.
        serde_json::Value::from(path.to_string_lossy()).to_string()
    }
}
