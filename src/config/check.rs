//! What settings may not be, beyond what each of them can be read as.

use std::time::Duration;

use super::layers::Layers;
use super::{Address, Addresses, Config, Error, Listen, LogPlace, ServeConfig};

impl Config {
    /// What no value can be checked for alone.
    pub(super) fn check(&self, layers: &Layers) -> Result<(), Error> {
        let ServeConfig {
            heartbeat_interval,
            lease_duration,
            ..
        } = self.serve;
        let heartbeats = Duration::from_millis(100)..=Duration::from_secs(600);
        if !heartbeats.contains(&heartbeat_interval) {
            return Err(layers.invalid("serve.heartbeat_interval", "give 100ms to 10min"));
        }
        if lease_duration < 3 * heartbeat_interval {
            return Err(layers.invalid(
                "serve.lease_duration",
                format!(
                    "give at least three heartbeat intervals (serve.heartbeat_interval is {heartbeat_interval:?}), so that one heartbeat that is late does not end a lease"
                ),
            ));
        }
        let times = Duration::from_secs(1)..=Duration::from_secs(3600);
        if !times.contains(&self.serve.task_time) {
            return Err(layers.invalid("serve.task_time", "give 1s to 1h"));
        }
        for (key, value, most) in [
            ("serve.max_attempts", self.serve.max_attempts, 1000),
            ("serve.poison_workers", self.serve.poison_workers, 1000),
            ("serve.max_open_jobs", self.serve.max_open_jobs, u32::MAX),
            ("serve.max_open_units", self.serve.max_open_units, u32::MAX),
            ("worker.credits", self.worker.credits, 1000),
            (
                "serve.requests_per_second",
                self.serve.requests_per_second,
                u32::MAX,
            ),
            (
                "serve.streams_per_connection",
                self.serve.streams_per_connection,
                100_000,
            ),
            (
                "serve.streams_per_principal",
                self.serve.streams_per_principal,
                1_000_000,
            ),
            (
                "serve.max_connections",
                self.serve.max_connections,
                1_000_000,
            ),
        ] {
            if value < 1 || value > most {
                return Err(layers.invalid(key, format!("give 1 to {most}")));
            }
        }
        if !(0.0..=1.0).contains(&self.log.otlp_part) {
            return Err(layers.invalid("log.otlp_part", "give 0 to 1"));
        }
        let collector = self.log.otlp_endpoint.as_ref();
        if self.log.otlp_ca.is_some() && !collector.is_some_and(Address::is_secure) {
            let remedy = "name in log.otlp_endpoint the https:// address that it vouches for";
            return Err(layers.invalid("log.otlp_ca", remedy));
        }
        // A token given in place of its file would be told by every error that names the file.
        for (key, (text, _)) in &layers.values {
            if crate::auth::has_token(text) {
                let remedy = "name a file that holds the token, not the token";
                return Err(layers.invalid(key, remedy));
            }
        }
        self.check_bucket(layers)?;
        for (key, value, least, most) in [
            ("edit.min_efficacy", self.edit.min_efficacy, -1.0, 1.0),
            ("edit.max_drift", self.edit.max_drift, 0.0, f64::MAX),
            ("edit.max_norm", self.edit.max_norm, 0.0, f64::MAX),
            ("edit.warn_norm", self.edit.warn_norm, 0.0, f64::MAX),
            ("edit.max_ppl_ratio", self.edit.max_ppl_ratio, 0.0, f64::MAX),
            ("edit.min_locality", self.edit.min_locality, 0.0, 1.0),
        ] {
            if value.is_some_and(|value| !(least..=most).contains(&value)) {
                let remedy = match (least < 0.0, most > 1.0) {
                    (_, true) => "give 0 or more",
                    (true, false) => "give -1 to 1",
                    (false, false) => "give 0 to 1",
                };
                return Err(layers.invalid(key, remedy));
            }
        }
        self.check_security(layers)
    }

    fn check_bucket(&self, layers: &Layers) -> Result<(), Error> {
        let store = &self.store;
        if store.bucket.is_some() && store.credentials.is_none() {
            return Err(layers.invalid(
                "store.credentials",
                "name the file with the key of the bucket (store.bucket)",
            ));
        }
        if store.cache_size.is_some() && store.bucket.is_none() {
            return Err(layers.invalid(
                "store.cache_size",
                "leave it out, or name the bucket that has the objects in store.bucket: without one \
                 the store's folder has the only copies, and nothing of it is removed",
            ));
        }
        for (key, size) in [
            ("store.cache_size", store.cache_size),
            ("worker.cache_size", self.worker.cache_size),
        ] {
            if size.is_some_and(|size| size.bytes() == 0) {
                return Err(layers.invalid(key, "give more than nothing, or leave it out"));
            }
        }
        for (key, given) in [
            ("store.endpoint", store.endpoint.is_some()),
            ("store.credentials", store.credentials.is_some()),
            ("store.ca", store.ca.is_some()),
        ] {
            if given && store.bucket.is_none() {
                return Err(layers.invalid(key, "name the bucket that it is for in store.bucket"));
            }
        }
        if store.log == LogPlace::Bucket && store.bucket.is_none() {
            return Err(layers.invalid("store.log", "name the bucket in store.bucket"));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(600)).contains(&store.takeover) {
            return Err(layers.invalid("store.takeover", "give 1s to 10min"));
        }
        let times = Duration::from_millis(100)..=Duration::from_secs(600);
        if !times.contains(&store.timeout) {
            return Err(layers.invalid("store.timeout", "give 100ms to 10min"));
        }
        Ok(())
    }

    /// Nothing is open to others by oversight.
    fn check_security(&self, layers: &Layers) -> Result<(), Error> {
        let serve = &self.serve;
        if serve.tls_certificate.is_some() != serve.tls_key.is_some() {
            return Err(layers.invalid(
                "serve.tls_certificate",
                "give serve.tls_certificate and serve.tls_key, or neither",
            ));
        }
        if !serve.web_hosts.0.is_empty() && serve.web_listen.is_none() {
            return Err(layers.invalid(
                "serve.web_hosts",
                "give serve.web_listen, where these names are answered to, or leave it out",
            ));
        }
        let tls = serve.tls_certificate.is_some();
        if serve.client_ca.is_some() && !tls {
            return Err(layers.invalid(
                "serve.client_ca",
                "callers show certificates over TLS only: give serve.tls_certificate and serve.tls_key",
            ));
        }
        let guarded = serve.client_ca.is_some() || serve.tokens.is_some();
        let is_socket = matches!(serve.listen, Listen::Socket(_));
        if is_socket && serve.client_ca.is_some() && serve.tokens.is_none() {
            return Err(layers.invalid(
                "serve.listen",
                "a socket is called without TLS, where nobody can show a certificate: give an address and a port, or serve.tokens",
            ));
        }
        let workers = serve.worker_listen.map(Listen::Address);
        let web = serve.web_listen.map(Listen::Address);
        for (key, address) in [
            ("serve.listen", Some(&serve.listen)),
            ("serve.worker_listen", workers.as_ref()),
            ("serve.web_listen", web.as_ref()),
        ] {
            let inside = address.is_none_or(Listen::is_inside);
            if inside || (tls && guarded) || serve.insecure {
                continue;
            }
            return Err(layers.invalid(
                key,
                "beyond this machine, give serve.tls_certificate, serve.tls_key, and serve.client_ca or serve.tokens ('palimpsest auth init' makes what is needed), or say serve.insecure = true",
            ));
        }
        for (key, address, ca, certificate, private) in [
            (
                "worker.coordinator",
                Some(&self.worker.coordinator),
                &self.worker.ca,
                &self.worker.certificate,
                &self.worker.key,
            ),
            (
                "client.server",
                self.client.server.as_ref(),
                &self.client.ca,
                &self.client.certificate,
                &self.client.key,
            ),
        ] {
            let section = key.split('.').next().unwrap_or(key);
            if address.is_some_and(Addresses::is_secure) && ca.is_none() {
                return Err(layers.invalid(
                    key,
                    format!("name in {section}.ca the authority that vouches for the coordinator"),
                ));
            }
            if certificate.is_some() != private.is_some() {
                return Err(layers.invalid(
                    key,
                    format!("give {section}.certificate and {section}.key, or neither"),
                ));
            }
        }
        Ok(())
    }
}
