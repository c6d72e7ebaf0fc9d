//! The gate in front of all services: who calls, and whether they may.
//!
//! It stands before the services, so that none can be forgotten: a request whose method is not in
//! the table of [`crate::auth::role`] is refused, whoever sends it. Who calls more often than is
//! allowed is told when to come again. Who is known and calls what is not for them is entered into
//! the audit log.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, Either};
use jiff::Timestamp;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::caller::record_refusal;
use super::listener::{Audience, Peer};
use super::standing::{Holders, Place, Right, Watched};
use super::status::{Reason, retry_later, status};
use crate::audit;
use crate::auth::{Caller, Rate, Refusal, Role, TokenHash, Tokens, certificate, role};
use crate::client::PRINCIPAL;
use crate::coordinator::Coordinator;
use crate::telemetry::metrics::REFUSALS;

/// What callers have to show.
#[derive(Clone, Debug)]
enum Asks {
    /// Nothing: whoever reaches the server may do everything, in the name that they give.
    Nothing,
    /// A certificate that was verified, or a token of this file.
    Proof(Option<Arc<Tokens>>),
}

/// What each principal may hold at a time, over all connections.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Streams, which are calls under way.
    pub streams: usize,
    /// Connections that all callers together may have.
    pub connections: usize,
}

impl Bounds {
    /// Streams of a principal. The workers of a principal may be as many as there are connections,
    /// and each has its own stream and those by which it fetches files.
    fn streams(&self, role: Role) -> usize {
        match role {
            Role::Worker => self.streams.max(4 * self.connections),
            _ => self.streams,
        }
    }

    /// Connections of a principal: nobody takes the whole table.
    fn connections(&self, role: Role) -> usize {
        let share = match role {
            Role::Worker => self.connections - self.connections / 4,
            _ => self.connections / 4,
        };
        share.max(8)
    }
}

/// What a request is let through with.
#[derive(Debug)]
struct Pass {
    /// None where nobody is asked who they are.
    right: Option<Arc<Right>>,
    place: Place,
}

/// What a request has to get past.
#[derive(Clone, Debug)]
pub struct Gate {
    asks: Asks,
    rate: Option<Arc<Rate>>,
    bounds: Bounds,
    streams: Arc<Holders>,
    connections: Arc<Holders>,
    /// Whose audit log has those who are refused.
    coordinator: Option<Coordinator>,
}

/// Why a request does not get past the gate.
#[derive(Debug)]
struct Refused {
    status: Status,
    /// Who was refused for what they are, if they showed who they are.
    principal: Option<String>,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self {
            status,
            principal: None,
        }
    }
}

impl Gate {
    /// A gate that everybody gets past.
    pub fn open() -> Self {
        Self::asking(Asks::Nothing)
    }

    /// A gate for those who show a certificate, or a token of this file.
    pub fn guarded(tokens: Option<Arc<Tokens>>) -> Self {
        Self::asking(Asks::Proof(tokens))
    }

    fn asking(asks: Asks) -> Self {
        Self {
            asks,
            rate: None,
            bounds: Bounds {
                streams: 1000,
                connections: 4096,
            },
            streams: Arc::default(),
            connections: Arc::default(),
            coordinator: None,
        }
    }

    /// The same gate, with the refusals entered into this coordinator's audit log.
    pub(super) fn audited(self, coordinator: Coordinator) -> Self {
        let coordinator = Some(coordinator);
        Self {
            coordinator,
            ..self
        }
    }

    /// The same gate for so many requests a second of each person. Workers are not counted: they
    /// ask as often as their leases need.
    pub fn with_rate(self, per_second: u32) -> Self {
        let rate = Some(Arc::new(Rate::new(per_second)));
        Self { rate, ..self }
    }

    /// The same gate with other bounds of what each principal holds.
    pub fn with_bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Whether it asks callers who they are.
    pub fn is_guarded(&self) -> bool {
        matches!(self.asks, Asks::Proof(_))
    }

    /// Takes what the call will hold, on a connection that the caller may have.
    fn hold<B>(&self, request: &Request<B>, caller: &Caller) -> Result<Place, Status> {
        let Caller { role, principal } = caller;
        let key = format!("{role} {principal}");
        let (streams, most) = (self.bounds.streams(*role), self.bounds.connections(*role));
        if let Some(peer) = request.extensions().get::<Peer>()
            && !peer.admit(|| self.connections.take(&key, most))
        {
            return Err(too_much_held(principal, "connections", most));
        }
        self.streams
            .take(&key, streams)
            .ok_or_else(|| too_much_held(principal, "streams", streams))
    }

    /// The same where nobody is asked who they are: what is told apart is the address. On one
    /// machine all have the same, so that it may hold what workers may: one program that leaks
    /// streams must not keep the others out. Callers without an address are inside this process.
    fn hold_by_address<B>(&self, request: &Request<B>) -> Result<Option<Place>, Status> {
        let Some(peer) = request.extensions().get::<Peer>() else {
            return Ok(None);
        };
        let address = match peer.address {
            Some(address) => address.ip().to_string(),
            None => "a socket".to_owned(),
        };
        let (streams, most) = (
            self.bounds.streams(Role::Worker),
            self.bounds.connections(Role::Worker),
        );
        if !peer.admit(|| self.connections.take(&address, most)) {
            return Err(too_much_held(&address, "connections", most));
        }
        let place = self.streams.take(&address, streams);
        place
            .map(Some)
            .ok_or_else(|| too_much_held(&address, "streams", streams))
    }

    /// Lets a request through, with the caller's principal in place of the name that it came with,
    /// or says why not.
    fn admit<B>(&self, request: &mut Request<B>) -> Result<Option<Pass>, Refused> {
        check_audience(request)?;
        let Asks::Proof(tokens) = &self.asks else {
            let place = self.hold_by_address(request)?;
            return Ok(place.map(|place| Pass { right: None, place }));
        };
        let path = request.uri().path();
        let Some(who) = role::who(path) else {
            return Err(denied(path, "nobody may call it, for it is not known").into());
        };
        if who == role::Who::Anybody {
            return Ok(None);
        }
        let (caller, token) = identify(tokens.as_ref(), request)?;
        // What will be refused counts too: every refusal is an entry.
        if let Some(rate) = &self.rate
            && caller.role != Role::Worker
        {
            let taken = rate.take(&caller.principal, Timestamp::now());
            taken.map_err(|wait| too_often(rate, &caller.principal, wait))?;
        }
        if !who.includes(caller.role) {
            let why = format!("{} is {}", caller.principal, caller.role.described());
            return Err(Refused {
                status: denied(path, &why),
                principal: Some(caller.principal),
            });
        }
        let name = HeaderValue::from_str(&caller.principal).map_err(|_| unknown("no name"))?;
        request.headers_mut().insert(PRINCIPAL, name);
        let place = self.hold(request, &caller)?;
        request.headers_mut().remove(AUTHORIZATION);
        request.extensions_mut().insert(caller.clone());
        let right = Some(Arc::new(Right::new(caller, token)));
        Ok(Some(Pass { right, place }))
    }
}

/// Workers and people may have doors of their own.
fn check_audience<B>(request: &Request<B>) -> Result<(), Status> {
    let Some(peer) = request.extensions().get::<Peer>() else {
        return Ok(());
    };
    let path = request.uri().path();
    match peer.audience {
        Audience::Workers if !role::who(path).is_some_and(|who| who.includes(Role::Worker)) => Err(
            denied(path, "this port is for workers (serve.worker_listen)"),
        ),
        Audience::People if role::method(path) == Some(role::CONNECT) => Err(denied(
            path,
            "workers have a port of their own here (serve.worker_listen)",
        )),
        _ => Ok(()),
    }
}

fn too_often(rate: &Rate, principal: &str, wait: Duration) -> Status {
    let per_second = rate.per_second();
    let message = format!(
        "{principal} asks more than {per_second} times a second (serve.requests_per_second): ask again in {} ms",
        wait.as_millis() + 1
    );
    let metadata = [
        ("principal", principal.to_owned()),
        ("per_second", per_second.to_string()),
    ];
    retry_later(Reason::TooOften, message, wait, metadata)
}

fn too_much_held(principal: &str, what: &str, most: usize) -> Status {
    let message = format!("{principal} has {most} {what}, and may have no more at a time");
    let metadata = [
        ("principal", principal.to_owned()),
        ("what", what.to_owned()),
        ("limit", most.to_string()),
    ];
    retry_later(
        Reason::TooMuchHeld,
        message,
        Duration::from_secs(1),
        metadata,
    )
}

/// A token that was shown, and the file that has it.
type Shown = (TokenHash, Arc<Tokens>);

/// Who sends a request, and with which token, if with one. A token goes before a certificate: a
/// worker's machine may have its own certificate, and its user a token.
fn identify<B>(
    tokens: Option<&Arc<Tokens>>,
    request: &Request<B>,
) -> Result<(Caller, Option<Shown>), Status> {
    if let Some(token) = bearer(request.headers())? {
        let Some(tokens) = tokens else {
            return Err(unknown("this coordinator takes no tokens"));
        };
        let hash = TokenHash::of(token);
        return tokens
            .holder(&hash, Timestamp::now())
            .map(|caller| (caller, Some((hash, Arc::clone(tokens)))))
            .map_err(|refusal| match refusal {
                Refusal::Unknown => unknown("the token is not known, or was revoked"),
                Refusal::Expired => unknown("the token has expired"),
            });
    }
    let peer = request.extensions().get::<Peer>();
    match peer.and_then(|peer| peer.certificate.as_ref()) {
        Some(shown) => certificate::caller(shown)
            .map(|caller| (caller, None))
            .ok_or_else(|| unknown("the certificate names no role and principal")),
        None => Err(unknown("neither a token nor a certificate came with it")),
    }
}

/// The token of a request; none if it has none.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Status> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(unknown("its authorization is not 'Bearer TOKEN'")),
    }
}

fn unknown(why: &str) -> Status {
    let message = format!("who asks is not known: {why}");
    status(Reason::Unauthenticated, message, [])
}

fn denied(path: &str, why: &str) -> Status {
    let method = path.trim_start_matches('/').to_owned();
    let allowed: Vec<String> = match role::who(path) {
        Some(who) => Role::ALL
            .into_iter()
            .filter(|role| who.includes(*role))
            .map(|role| role.to_string())
            .collect(),
        None => Vec::new(),
    };
    let message = match allowed.is_empty() {
        true => format!("{method} is refused: {why}"),
        false => format!(
            "{method} is refused: {why}, and it takes {}",
            allowed.join(" or ")
        ),
    };
    let metadata = [("method", method), ("roles", allowed.join(","))];
    status(Reason::PermissionDenied, message, metadata)
}

impl<S> Layer<S> for Gate {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            gate: self.clone(),
            inner,
        }
    }
}

/// A service behind the gate.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<BoxFuture<'static, Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.gate.admit(&mut request) {
            Ok(None) => Either::Right(self.inner.call(request)),
            Ok(Some(Pass { right, place })) => {
                let request = match right.clone() {
                    Some(right) => request.map(|body| Body::new(Watched::request(body, right))),
                    None => request,
                };
                let answer = self.inner.call(request);
                Either::Left(Box::pin(async move {
                    let response = answer.await?;
                    Ok(response.map(|body| Body::new(Watched::answer(body, right, place))))
                }))
            }
            Err(Refused { status, principal }) => {
                let method = request.uri().path().trim_start_matches('/');
                let why = match status.code() {
                    Code::Unauthenticated => "unauthenticated",
                    Code::ResourceExhausted => "too_often",
                    _ => "permission_denied",
                };
                REFUSALS.add([why], 1);
                // Whoever asks too often must not fill the disk as well.
                if status.code() != Code::ResourceExhausted {
                    tracing::warn!(method, reason = status.message(), "refused");
                }
                let entry = principal.map(|principal| audit::EntryDraft {
                    principal,
                    action: method.to_owned(),
                    ..audit::EntryDraft::default()
                });
                let coordinator = self.gate.coordinator.clone();
                if let Some(coordinator) = &coordinator
                    && role::method(request.uri().path()) == Some(role::CONNECT)
                {
                    coordinator.refused().note("", status.message());
                }
                Either::Left(Box::pin(async move {
                    if let (Some(coordinator), Some(entry)) = (coordinator, entry) {
                        record_refusal(&coordinator, entry, &status).await;
                    }
                    Ok(status.into_http())
                }))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tonic_types::StatusExt;

    use super::super::listener::Link;
    use super::*;
    use crate::auth;

    fn request(path: &str, authorization: Option<&str>) -> Request<()> {
        let mut request = Request::builder().uri(format!("http://host{path}"));
        request = request.header(PRINCIPAL, "somebody else");
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        request.body(()).unwrap()
    }

    /// A gate with a token for each role.
    fn guarded() -> (tempfile::TempDir, Gate, Vec<(Role, String)>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let issue = |role: Role| {
            let caller = Caller {
                role,
                principal: format!("a-{role}"),
            };
            (role, auth::issue(&path, &caller, None).unwrap())
        };
        let issued = Role::ALL.map(issue).to_vec();
        let gate = Gate::guarded(Some(Arc::new(Tokens::open(&path).unwrap())));
        (folder, gate, issued)
    }

    #[test]
    fn every_role_gets_what_the_table_gives_it_and_nothing_else() {
        let (_folder, gate, tokens) = guarded();
        for (method, who) in role::METHODS {
            for (role, token) in &tokens {
                let authorization = format!("Bearer {token}");
                let mut request = request(&format!("/{method}"), Some(&authorization));
                let admitted = gate.admit(&mut request);
                assert_eq!(admitted.is_ok(), who.includes(*role), "{role} {method}");
                match admitted {
                    Err(Refused { status, principal }) => {
                        // For the audit log.
                        assert_eq!(principal, Some(format!("a-{role}")));
                        assert_eq!(status.code(), Code::PermissionDenied);
                        let info = status.get_details_error_info().unwrap();
                        assert_eq!(info.metadata["method"], *method);
                    }
                    Ok(_) if *who == role::Who::Anybody => {}
                    Ok(_) => {
                        // The name is the token's, whatever the request claimed; services never
                        // see the token.
                        assert_eq!(request.headers()[PRINCIPAL], format!("a-{role}"));
                        assert!(!request.headers().contains_key(AUTHORIZATION));
                    }
                }
            }
        }
    }

    #[test]
    fn who_shows_nothing_or_something_wrong_is_not_let_in() {
        let (_folder, gate, _) = guarded();
        let jobs = "/palimpsest.v1.JobService/ListJobs";
        for authorization in [
            None,
            Some("Bearer "),
            Some("Bearer palimpsest_00"),
            Some("Basic YWRhOmFkYQ=="),
            Some("palimpsest_00"),
        ] {
            let admitted = gate.admit(&mut request(jobs, authorization));
            let Refused { status, principal } = admitted.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{authorization:?}");
            assert!(!status.message().contains("palimpsest_00"));
            // Nobody to name.
            assert_eq!(principal, None);
        }
        let tokenless = Gate::guarded(None);
        let refusal = tokenless
            .admit(&mut request(jobs, Some("Bearer x")))
            .unwrap_err();
        assert!(refusal.status.message().contains("takes no tokens"));
        // Probes show nothing.
        let health = "/grpc.health.v1.Health/Check";
        gate.admit(&mut request(health, None)).unwrap();
    }

    #[test]
    fn who_asks_too_often_is_told_when_to_come_again_and_workers_never_are() {
        let (_folder, gate, tokens) = guarded();
        let gate = gate.with_rate(3);
        for (role, token) in &tokens {
            let path = match role {
                Role::Worker => "/palimpsest.v1.WorkerService/Connect",
                _ => "/palimpsest.v1.JobService/ListJobs",
            };
            let authorization = format!("Bearer {token}");
            let answers: Vec<_> = (0..200)
                .map(|_| gate.admit(&mut request(path, Some(&authorization))))
                .collect();
            let refused: Vec<Status> = answers
                .into_iter()
                .filter_map(|admitted| Some(admitted.err()?.status))
                .collect();
            if *role == Role::Worker {
                assert!(refused.is_empty());
                continue;
            }
            // Three at once; more only as time passes, which 200 in memory do not take.
            assert!(refused.len() > 150, "{role}: {}", refused.len());
            assert_eq!(refused[0].code(), Code::ResourceExhausted);
            let details = refused[0].get_error_details();
            let wait = details.retry_info().and_then(|info| info.retry_delay);
            assert!(
                wait.is_some_and(|wait| wait <= Duration::from_millis(334)),
                "{wait:?}"
            );
        }
    }

    #[test]
    fn doors_of_their_own_let_in_workers_alone_and_people_alone() {
        let through = |audience: Audience, path: &str| {
            let mut request = request(path, None);
            request.extensions_mut().insert(Peer {
                address: Some(([127, 0, 0, 1], 1).into()),
                certificate: None,
                audience,
                link: Arc::default(),
            });
            Gate::open().admit(&mut request).is_ok()
        };
        let (connect, list, read) = (
            "/palimpsest.v1.WorkerService/Connect",
            "/palimpsest.v1.JobService/ListJobs",
            "/palimpsest.v1.ObjectService/ReadObject",
        );
        for (audience, expected) in [
            (Audience::Any, [true, true, true]),
            (Audience::Workers, [true, false, true]),
            (Audience::People, [false, true, true]),
        ] {
            let found = [connect, list, read].map(|path| through(audience, path));
            assert_eq!(found, expected, "{audience:?}");
        }
    }

    #[test]
    fn where_nobody_is_asked_an_address_holds_so_much_and_no_more() {
        let gate = Gate::open().with_bounds(Bounds {
            streams: 3,
            connections: 16,
        });
        let call = |path: &str, host: u8, link: &Arc<Link>| {
            let mut request = request(path, None);
            request.extensions_mut().insert(Peer {
                address: Some(([10, 0, 0, host], 1).into()),
                certificate: None,
                audience: Audience::Any,
                link: Arc::clone(link),
            });
            gate.admit(&mut request).map(Option::unwrap)
        };
        let read = "/palimpsest.v1.ObjectService/ReadObject";
        let link = Arc::default();
        // Four for each connection that there may be.
        let held: Vec<Pass> = (0..64).map(|_| call(read, 1, &link).unwrap()).collect();
        // Over all connections of the address; of others nothing is taken.
        let refused = call(read, 1, &Arc::default()).unwrap_err().status;
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(
            refused.message().contains("10.0.0.1 has 64 streams"),
            "{refused:?}"
        );
        let info = refused.get_details_error_info().unwrap();
        assert_eq!(info.reason, "TOO_MUCH_HELD");
        call(read, 2, &Arc::default()).unwrap();
        drop(held);
        call(read, 1, &link).unwrap();
        // Connections: three quarters of the table.
        let links: Vec<Arc<Link>> = (0..12).map(|_| Arc::default()).collect();
        let taken = links.iter().filter(|link| call(read, 3, link).is_ok());
        assert_eq!(taken.count(), 12);
        let refused = call(read, 3, &Arc::default()).unwrap_err().status;
        assert!(refused.message().contains("12 connections"), "{refused:?}");
        // Inside this process there is no address, and no bound.
        assert!(gate.admit(&mut request(read, None)).unwrap().is_none());
    }

    #[test]
    fn a_method_that_is_not_known_is_refused_even_to_admins() {
        let (_folder, gate, tokens) = guarded();
        let (_, admin) = tokens
            .iter()
            .find(|(role, _)| *role == Role::Admin)
            .unwrap();
        let authorization = format!("Bearer {admin}");
        let mut request = request("/palimpsest.v1.JobService/Burn", Some(&authorization));
        let refusal = gate.admit(&mut request).unwrap_err();
        assert_eq!(refusal.status.code(), Code::PermissionDenied);
    }
}
