//! Who a client's certificate names: a URI among its alternative names,
//! `palimpsest://ROLE/PRINCIPAL`.

use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{Caller, is_principal};

/// The scheme of the URI.
const SCHEME: &str = "palimpsest://";

/// The URI that names a caller.
pub fn uri(caller: &Caller) -> String {
    format!("{SCHEME}{}/{}", caller.role, caller.principal)
}

/// Who the URI names; none if it is not such a URI.
pub fn parse(uri: &str) -> Option<Caller> {
    let (role, principal) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    is_principal(principal).then_some(())?;
    Some(Caller {
        role: role.parse().ok()?,
        principal: principal.to_owned(),
    })
}

/// Who a certificate names. The certificate was verified before, when the connection was opened;
/// one that names several callers names none.
pub fn caller(certificate: &CertificateDer<'_>) -> Option<Caller> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut callers = certificate.valid_uri_names().filter_map(parse);
    let only = callers.next()?;
    callers.next().is_none().then_some(only)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::auth::Role;

    #[test]
    fn a_uri_names_a_role_and_a_principal() {
        let ada = Caller {
            role: Role::Editor,
            principal: "ada@lab.example".to_owned(),
        };
        assert_eq!(uri(&ada), "palimpsest://editor/ada@lab.example");
        assert_eq!(parse(&uri(&ada)), Some(ada));
        for other in [
            "https://editor/ada",
            "palimpsest://root/ada",
            "palimpsest://editor/",
            "palimpsest://editor",
            "palimpsest://editor/ada/lovelace",
            "palimpsest://editor/a da",
            "spiffe://cluster/ns/default",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
