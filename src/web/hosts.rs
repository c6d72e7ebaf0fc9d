//! By which names a server is called.
//!
//! A page of another site can have its own name point at this machine (DNS rebinding): its browser
//! then takes this server for that site, and lets the page read the answers. What it cannot do is to
//! change the name, which stands in every request; a name that is not ours is refused before anything
//! else is looked at.

use std::net::IpAddr;
use std::sync::Arc;

use tonic::codegen::http::uri::Authority;
use tonic::codegen::http::{Request, header};

use crate::auth::ServerTls;

/// The names of a server, ports left out: behind `ssh -L` they are others.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    address: Option<IpAddr>,
    names: Vec<String>,
    tls: Option<Arc<ServerTls>>,
}

impl Hosts {
    /// Those of a server at this address, beside `localhost`. One that listens at all addresses of
    /// its machine has each of them for a name: an address is nobody's to point elsewhere.
    pub fn at(address: IpAddr) -> Self {
        Self {
            address: Some(address),
            ..Self::default()
        }
    }

    /// Also these.
    pub fn with_names(self, names: Vec<String>) -> Self {
        Self { names, ..self }
    }

    /// Also those of the certificate that it shows.
    pub fn with_certificate(self, tls: Option<Arc<ServerTls>>) -> Self {
        Self { tls, ..self }
    }

    /// Whether a request is for this server; the error says what it answers to.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), String> {
        // Each that is given must be ours: HTTP/2 has it in the address, HTTP/1.1 in a header, and
        // a request to a proxy in both.
        let named = request.uri().authority().cloned();
        let mut headers = request.headers().get_all(header::HOST).iter();
        let shown = headers.next();
        if headers.next().is_some() {
            return Err("it names two hosts: give one Host".to_owned());
        }
        let shown = shown.map(|host| Authority::try_from(host.as_bytes()));
        let shown = shown
            .transpose()
            .map_err(|_| "its Host is malformed: write it as HOST:PORT".to_owned())?;
        if named.is_none() && shown.is_none() {
            return Err("it names no host: give a Host".to_owned());
        }
        match named.iter().chain(&shown).find(|host| !self.has(host)) {
            None => Ok(()),
            Some(host) => Err(format!(
                "'{}' is no name of this server: call it localhost, or by its address or a name of its certificate; a server of a team takes more names in serve.web_hosts",
                host.host()
            )),
        }
    }

    fn has(&self, authority: &Authority) -> bool {
        // A user before the host is no part of the name that a browser goes by.
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host().to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if host == "localhost" || self.names.contains(&host) {
            return true;
        }
        if let Ok(ip) = bare.parse::<IpAddr>()
            && (ip.is_loopback()
                || (self.address).is_some_and(|own| own.is_unspecified() || own == ip))
        {
            return true;
        }
        self.tls.as_ref().is_some_and(|tls| tls.is_for(bare))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(hosts: &Hosts, uri: &str, host: Option<&str>) -> bool {
        let mut request = Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        hosts.check(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn a_server_answers_to_its_own_names_alone() {
        let here = Hosts::default();
        for own in [
            "localhost",
            "LOCALHOST:7463",
            "127.0.0.1:7463",
            "127.0.0.1",
            "[::1]:80",
            "127.9.9.9",
        ] {
            assert!(check(&here, "/", Some(own)), "{own}");
        }
        for other in [
            "evil.example",
            "evil.example:7463",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "evil@localhost",
            "10.0.0.1",
            "[fe80::1]",
            "",
            "local host",
            "localhost.",
        ] {
            assert!(!check(&here, "/", Some(other)), "{other}");
        }
        assert!(!check(&here, "/", None));
        // HTTP/2, and requests that name a host twice.
        assert!(check(&here, "http://localhost:1/", None));
        assert!(!check(&here, "http://evil.example/", None));
        assert!(!check(&here, "http://localhost/", Some("evil.example")));
        assert!(!check(&here, "http://evil.example/", Some("localhost")));
        let two = Request::builder()
            .header("host", "localhost")
            .header("host", "evil.example");
        assert!(here.check(&two.body(()).unwrap()).is_err());
    }

    #[test]
    fn a_server_of_a_team_has_its_address_and_the_names_that_it_was_given() {
        let at = Hosts::at([10, 0, 0, 7].into()).with_names(vec!["lab.example".to_owned()]);
        for own in ["10.0.0.7:7464", "lab.example", "Lab.Example:443"] {
            assert!(check(&at, "/", Some(own)), "{own}");
        }
        assert!(!check(&at, "/", Some("10.0.0.8")));
        let everywhere = Hosts::at([0, 0, 0, 0].into());
        assert!(check(&everywhere, "/", Some("10.0.0.8")));
        assert!(check(&everywhere, "/", Some("[fd00::1]:1")));
        assert!(!check(&everywhere, "/", Some("evil.example")));
    }
}
