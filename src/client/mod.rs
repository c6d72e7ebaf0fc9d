//! The client: the generated stubs over one channel.

pub mod pages;
mod several;
mod transfer;

pub use transfer::{download, upload};

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use self::several::Several;
use crate::proto::v1::audit_service_client::AuditServiceClient;
use crate::proto::v1::job_service_client::JobServiceClient;
use crate::proto::v1::model_service_client::ModelServiceClient;
use crate::proto::v1::object_service_client::ObjectServiceClient;
use crate::proto::v1::statistics_service_client::StatisticsServiceClient;
use crate::proto::v1::status_service_client::StatusServiceClient;
use crate::proto::v1::store_service_client::StoreServiceClient;
use crate::proto::v1::version_service_client::VersionServiceClient;
use crate::proto::v1::worker_service_client::WorkerServiceClient;
use crate::telemetry::traces;

/// Largest message that is taken or sent, as the server has it.
const MESSAGE_LIMIT: usize = 4 << 20;

/// Bytes that may be under way on a stream: weights travel over networks with a delay.
pub const WINDOW: u32 = 8 << 20;

/// How long a job's follower waits for a coordinator that went away: another machine may have to
/// start one.
const PATIENCE: Duration = Duration::from_secs(600);

/// The metadata key in which a client names its user.
pub const PRINCIPAL: &str = "palimpsest-principal";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is malformed.
    #[error("'{address}' is not an address: write it as http://HOST:PORT or unix:PATH")]
    Address {
        /// The address.
        address: String,
    },
    /// Nobody answers.
    #[error("no coordinator answers at {address} ({reason}): is 'palimpsest serve' running there?")]
    Connect {
        /// The address.
        address: String,
        /// Why.
        reason: String,
        /// Whether one that starts there, or takes over, would look the same.
        may_pass: bool,
    },
    /// A token would go over the network as it is.
    #[error(
        "the token of {} is not shown to {address}, which is called without TLS, where others read it: call it as \
         https://HOST:PORT, with the authority in client.ca or worker.ca; on this machine alone, client.insecure or \
         worker.insecure = true allows it",
        path.display()
    )]
    TokenInTheClear {
        /// The address.
        address: String,
        /// The token's file.
        path: PathBuf,
    },
    /// What the client is to show, or to trust, cannot be read.
    #[error("cannot use {path}: {reason}")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// What a client shows, and whom it trusts: files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'a> {
    /// The authority that vouches for the coordinator.
    pub ca: Option<&'a Path>,
    /// The client's certificate and its key.
    pub certificate: Option<(&'a Path, &'a Path)>,
    /// A file with a token.
    pub token_file: Option<&'a Path>,
    /// Whether the token may go to this machine itself without TLS; to others it never does.
    pub insecure: bool,
}

impl Credentials<'_> {
    fn tls(&self) -> Result<ClientTlsConfig, Error> {
        let mut tls = ClientTlsConfig::new();
        if let Some(ca) = self.ca {
            tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
        }
        if let Some((certificate, key)) = self.certificate {
            let identity = tonic::transport::Identity::from_pem(read(certificate)?, read(key)?);
            tls = tls.identity(identity);
        }
        Ok(tls)
    }

    fn authorization(&self, address: &str) -> Result<Option<MetadataValue<Ascii>>, Error> {
        let Some(path) = self.token_file else {
            return Ok(None);
        };
        // A socket is its owner's: nobody else reads what goes through it.
        let by_choice = is_socket(address) || self.insecure && is_this_machine(address);
        if !address.starts_with("https:") && !by_choice {
            return Err(Error::TokenInTheClear {
                address: address.to_owned(),
                path: path.to_owned(),
            });
        }
        if is_readable_by_all(path) {
            tracing::warn!(
                path = %path.display(),
                "everybody on this machine can read the token: chmod 600"
            );
        }
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        let token = text.trim();
        let unusable = |reason: &str| Error::Credentials {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        if token.is_empty() || token.contains(char::is_whitespace) {
            return Err(unusable("it should hold a token, alone"));
        }
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
            .parse()
            .map_err(|_| unusable("it holds what no token has"))?;
        value.set_sensitive(true); // left out of what is printed for debugging
        Ok(Some(value))
    }
}

/// Whether an address is a socket of the file system.
fn is_socket(address: &str) -> bool {
    address.starts_with("unix:")
}

/// Whether an address is of this machine, by its own words: no name is looked up.
fn is_this_machine(address: &str) -> bool {
    let uri: Result<tonic::transport::Uri, _> = address.parse();
    let host = uri.ok().and_then(|uri| uri.host().map(str::to_owned));
    host.is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let ip: Result<std::net::IpAddr, _> = bare.parse();
        host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    })
}

fn is_readable_by_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map(|it| it.permissions().mode());
    mode.is_ok_and(|mode| mode & 0o004 != 0)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::Credentials {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// A connection to a coordinator. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    identity: Identity,
    patience: Duration,
}

/// A connection whose requests say who sends them.
pub type Signed = InterceptedService<Channel, Identity>;

/// Says in every request who sends it, and what trace it is part of.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    user: Option<MetadataValue<Ascii>>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Identity {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(user) = &self.user {
            request.metadata_mut().insert(PRINCIPAL, user.clone());
        }
        if traces::are_on()
            && let Ok(trace_parent) = traces::trace_parent(&tracing::Span::current()).parse()
        {
            request
                .metadata_mut()
                .insert(traces::TRACE_PARENT, trace_parent);
        }
        if let Some(authorization) = &self.authorization {
            request
                .metadata_mut()
                .insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}

/// An endpoint with the settings that every connection of this program has.
///
/// # Errors
/// [`Error::Address`].
pub fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let malformed = || Error::Address {
        address: address.to_owned(),
    };
    let with_scheme = if address.contains("://") || is_socket(address) {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    Ok(Endpoint::from_shared(with_scheme)
        .map_err(|_| malformed())?
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10)))
}

/// An endpoint that speaks TLS if the address says so.
fn secured(address: &str, credentials: &Credentials<'_>) -> Result<Endpoint, Error> {
    let endpoint = endpoint(address)?;
    if !address.starts_with("https:") {
        return Ok(endpoint);
    }
    let tls = credentials.tls()?;
    endpoint
        .tls_config(tls)
        .map_err(|error| Error::Credentials {
            path: credentials.ca.unwrap_or(Path::new("")).to_owned(),
            reason: deepest(&error),
        })
}

/// What is shown to a coordinator, to each of several.
fn authorization(
    address: &str,
    credentials: &Credentials<'_>,
) -> Result<Option<MetadataValue<Ascii>>, Error> {
    let mut shown = None;
    for one in address.split(',') {
        shown = credentials.authorization(one)?;
    }
    Ok(shown)
}

/// What connects to one of several addresses; none where there is one alone.
fn several(
    address: &str,
    credentials: &Credentials<'_>,
) -> Result<Option<(Endpoint, Several)>, Error> {
    let Some((first, _)) = address.split_once(',') else {
        return Ok(None);
    };
    let all: Result<Vec<_>, _> = address.split(',').map(endpoint).collect();
    let uris: Vec<_> = all?.iter().map(|one| one.uri().clone()).collect();
    let several = Several::new(&uris);
    let endpoint = secured(first, credentials)?
        .connect_timeout(several.patience() + Duration::from_secs(3))
        // A machine that is gone does not close its connections.
        .http2_keep_alive_interval(Duration::from_secs(3))
        .keep_alive_timeout(Duration::from_secs(3));
    Ok(Some((endpoint, several)))
}

impl Client {
    /// Connects to a coordinator; of several addresses, separated by commas, to the one that leads,
    /// whichever that is whenever it has to connect. Over TLS each of them shows a certificate of the
    /// first one's name.
    ///
    /// # Errors
    /// [`Error::Address`] and [`Error::Connect`].
    pub async fn connect(address: &str) -> Result<Self, Error> {
        Self::connect_with(address, &Credentials::default()).await
    }

    /// Connects to a coordinator that wants to know who calls, or shows who it is.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Credentials`] and [`Error::Connect`].
    pub async fn connect_with(address: &str, credentials: &Credentials<'_>) -> Result<Self, Error> {
        let authorization = authorization(address, credentials)?;
        let connected = match several(address, credentials)? {
            Some((endpoint, several)) => endpoint.connect_with_connector(several).await,
            None => secured(address, credentials)?.connect().await,
        };
        let channel = connected.map_err(|error| Error::Connect {
            address: address.to_owned(),
            reason: deepest(&error),
            may_pass: several::may_pass(&error),
        })?;
        Ok(Self::new(channel).with_authorization(authorization))
    }

    /// A client that connects when it is first used, and again whenever it must.
    ///
    /// # Errors
    /// [`Error::Address`] and [`Error::Credentials`].
    pub fn connect_lazy(address: &str, credentials: &Credentials<'_>) -> Result<Self, Error> {
        let authorization = authorization(address, credentials)?;
        let channel = match several(address, credentials)? {
            Some((endpoint, several)) => endpoint.connect_with_connector_lazy(several),
            None => secured(address, credentials)?.connect_lazy(),
        };
        Ok(Self::new(channel).with_authorization(authorization))
    }

    /// The same client, with another time for which a coordinator that went away is waited for while
    /// a job is followed; ten minutes otherwise.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How long a coordinator that went away is waited for while a job is followed.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    fn with_authorization(mut self, authorization: Option<MetadataValue<Ascii>>) -> Self {
        self.identity.authorization = authorization;
        self
    }

    /// A client over a channel.
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            identity: Identity::default(),
            patience: PATIENCE,
        }
    }

    /// The same client with the name of the user whom it asks for. What of the name is not
    /// printable ASCII travels as `?`.
    pub fn with_user(mut self, user: Option<&str>) -> Self {
        let plain = |c: char| {
            if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '?'
            }
        };
        let named = user.map(|user| user.chars().map(plain).collect::<String>());
        self.identity.user = named.and_then(|name| name.parse().ok());
        self
    }

    /// The channel.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Its calls, as they are on the wire.
    pub fn signed(&self) -> Signed {
        InterceptedService::new(self.channel(), self.identity.clone())
    }

    /// Jobs.
    pub fn jobs(&self) -> JobServiceClient<Signed> {
        JobServiceClient::with_interceptor(self.channel(), self.identity.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// Models.
    pub fn models(&self) -> ModelServiceClient<Signed> {
        ModelServiceClient::with_interceptor(self.channel(), self.identity.clone())
    }

    /// Edits, versions and refs.
    pub fn versions(&self) -> VersionServiceClient<Signed> {
        VersionServiceClient::with_interceptor(self.channel(), self.identity.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// Key statistics.
    pub fn statistics(&self) -> StatisticsServiceClient<Signed> {
        StatisticsServiceClient::with_interceptor(self.channel(), self.identity.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// The audit log.
    pub fn audit(&self) -> AuditServiceClient<Signed> {
        AuditServiceClient::with_interceptor(self.channel(), self.identity.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// Objects.
    pub fn objects(&self) -> ObjectServiceClient<Signed> {
        ObjectServiceClient::with_interceptor(self.channel(), self.identity.clone())
    }

    /// The store.
    pub fn store(&self) -> StoreServiceClient<Signed> {
        StoreServiceClient::with_interceptor(self.channel(), self.identity.clone())
    }

    /// The coordinator's own state.
    pub fn status(&self) -> StatusServiceClient<Signed> {
        StatusServiceClient::with_interceptor(self.channel(), self.identity.clone())
    }

    /// Workers.
    pub fn workers(&self) -> WorkerServiceClient<Signed> {
        WorkerServiceClient::with_interceptor(self.channel(), self.identity.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }
}

/// The cause at the bottom of an error: a transport's own words say little.
pub fn deepest(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_out_over_tls_or_to_this_machine_by_choice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "secret\n").unwrap();
        let shown = |address: &str, insecure| {
            let credentials = Credentials {
                token_file: Some(&path),
                insecure,
                ..Credentials::default()
            };
            credentials.authorization(address).is_ok()
        };
        for here in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"] {
            assert!(shown(here, true), "{here}");
            assert!(!shown(here, false), "{here}");
        }
        for there in [
            "http://10.0.0.1:1",
            "http://head:1",
            "http://localhost.example.org:1",
            "http://127.0.0.1.example.org:1",
            "head:7461",
        ] {
            assert!(!shown(there, true), "{there}");
            assert!(shown("https://head:1", false));
        }
        assert!(shown("unix:/run/palimpsest", false));
    }
}
