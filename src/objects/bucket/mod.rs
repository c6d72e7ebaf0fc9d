//! Objects in an S3-compatible bucket.
//!
//! ```text
//! PREFIX/owner            the identifier of the store whose objects these are
//! PREFIX/objects/abcd...  an object, by its digest
//! PREFIX/log/...          the store's log, where that is in the bucket
//! ```
//!
//! An object appears there in one step, whole: a small one by one request, a large one in parts
//! that become visible together. Requests run on threads of their own, and whoever needs an answer
//! waits for it on his: the rest of the program need not know that there is a network. Every
//! request has its limit of time, and is repeated a few times at most.

mod credentials;
mod download;
mod named;
mod upload;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, ObjectStore as _, PutPayload, RetryConfig,
};
use tokio::runtime::{Builder, Runtime};

use super::{Digest, Error};
use crate::blocking::in_place;

/// Times that a request is repeated, at most.
const RETRIES: usize = 3;
/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of a part of a large object, up and down, and those that one request moves at most.
const PART: u64 = 8 << 20;
/// Parts that are on their way at a time.
const PARTS_AHEAD: usize = 4;

/// Which bucket, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketSettings {
    /// The bucket's name.
    pub name: String,
    /// What the keys of all objects begin with; may be empty.
    pub prefix: String,
    /// The address of the server; AWS's for the region where there is none.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The file with the key.
    pub credentials: PathBuf,
    /// A PEM file with the authorities that vouch for the server, beside the system's.
    pub ca: Option<PathBuf>,
    /// How long a request may take.
    pub timeout: Duration,
}

impl BucketSettings {
    /// As `s3://NAME/PREFIX`.
    pub fn url(&self) -> String {
        match self.prefix.as_str() {
            "" => format!("s3://{}", self.name),
            prefix => format!("s3://{}/{prefix}", self.name),
        }
    }

    /// The server's address, or whose it is.
    pub fn server(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("AWS in {}", self.region),
        }
    }
}

/// An object as a bucket lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// When it was stored, by the bucket's clock.
    pub(crate) stored: SystemTime,
}

/// A bucket of objects. Cloning it is cheap; clones may be used at once.
#[derive(Clone)]
pub struct Bucket {
    shared: Arc<Shared>,
}

struct Shared {
    settings: BucketSettings,
    store: Arc<AmazonS3>,
    /// Taken when the last handle goes.
    runtime: Option<Runtime>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The last handle may go on a thread that must not wait.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Bucket {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({self})")
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shared.settings.url())
    }
}

impl Bucket {
    /// A bucket, of which nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Credentials`] when the file with the key has none, or half of one;
    /// [`Error::BucketSettings`] when a setting cannot be; [`Error::Io`] when a file cannot be
    /// read.
    pub fn new(settings: BucketSettings) -> Result<Self, Error> {
        let key = credentials::read(&settings.credentials)?;
        let bad = |problem: String| Error::BucketSettings {
            bucket: settings.url(),
            problem,
        };
        let timeout = settings.timeout;
        let mut client = ClientOptions::new()
            .with_timeout(timeout)
            .with_connect_timeout(timeout.min(CONNECT))
            .with_allow_http(true);
        if let Some(ca) = &settings.ca {
            let pem = std::fs::read(ca).map_err(Error::io("read", ca))?;
            let found = Certificate::from_pem_bundle(&pem)
                .map_err(|error| bad(format!("store.ca, {}: {error}", ca.display())))?;
            for certificate in found {
                client = client.with_root_certificate(certificate);
            }
        }
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&settings.name)
            .with_region(&settings.region)
            .with_access_key_id(key.id)
            .with_secret_access_key(key.secret)
            .with_client_options(client)
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: Duration::from_millis(100),
                    max_backoff: Duration::from_secs(2),
                    base: 2.0,
                },
                max_retries: RETRIES,
                // None begins later than this after the first.
                retry_timeout: timeout,
            });
        if let Some(token) = key.token {
            builder = builder.with_token(token);
        }
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let store = builder.build().map_err(|error| bad(error.to_string()))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("bucket")
            .enable_all()
            .build()
            .map_err(Error::io("start threads for", settings.url()))?;
        Ok(Self {
            shared: Arc::new(Shared {
                settings,
                store: Arc::new(store),
                runtime: Some(runtime),
            }),
        })
    }

    /// How it is reached.
    pub fn settings(&self) -> &BucketSettings {
        &self.shared.settings
    }

    /// The store that owns what is under the prefix; none when nobody does.
    ///
    /// # Errors
    /// [`Error::BucketAway`], [`Error::BucketRefused`].
    pub fn owner(&self) -> Result<Option<String>, Error> {
        let (store, key) = (self.store(), self.key("owner"));
        let read = self.wait("read the owner's mark", async move {
            match store.get(&key).await {
                Ok(found) => Ok(Some(found.bytes().await?)),
                Err(error) if is_missing(&error) => Ok(None),
                Err(error) => Err(error),
            }
        })?;
        Ok(read.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    /// Says which store owns what is under the prefix.
    ///
    /// # Errors
    /// [`Error::BucketAway`], [`Error::BucketRefused`].
    pub fn set_owner(&self, owner: &str) -> Result<(), Error> {
        let (store, key) = (self.store(), self.key("owner"));
        let payload = PutPayload::from(owner.to_owned());
        self.wait("write the owner's mark", async move {
            store.put(&key, payload).await.map(drop)
        })
    }

    /// The size of an object in bytes; none when it is not there.
    ///
    /// # Errors
    /// [`Error::BucketAway`], [`Error::BucketRefused`].
    pub(crate) fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let (store, key) = (self.store(), self.key_of(digest));
        self.wait(format!("look for object {digest}"), async move {
            match store.head(&key).await {
                Ok(found) => Ok(Some(found.size)),
                Err(error) if is_missing(&error) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// All objects.
    ///
    /// # Errors
    /// [`Error::BucketAway`], [`Error::BucketRefused`].
    pub(crate) fn list(&self) -> Result<Vec<Kept>, Error> {
        let (store, prefix) = (self.store(), self.key("objects"));
        let limit = self.limit();
        self.run("list the objects", async move {
            let mut kept = Vec::new();
            let mut pages = store.list(Some(&prefix));
            // Of the whole list, which may be long, nobody knows how long it takes.
            while let Some(found) = timed(limit, async { Ok(pages.next().await) }).await? {
                let found = found.map_err(Trouble::Said)?;
                let name = found.location.filename().unwrap_or_default();
                let Ok(digest) = name.parse() else {
                    continue; // Not ours.
                };
                kept.push(Kept {
                    digest,
                    size: found.size,
                    stored: found.last_modified.into(),
                });
            }
            Ok(kept)
        })
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// [`Error::BucketAway`], [`Error::BucketRefused`].
    pub(crate) fn remove(&self, digest: &Digest) -> Result<(), Error> {
        let (store, key) = (self.store(), self.key_of(digest));
        self.wait(format!("remove object {digest}"), async move {
            match store.delete(&key).await {
                Err(error) if is_missing(&error) => Ok(()),
                removed => removed,
            }
        })
    }

    /// Where an object is, for people.
    pub(crate) fn place(&self, digest: &Digest) -> String {
        format!("s3://{}/{}", self.settings().name, self.key_of(digest))
    }

    fn store(&self) -> Arc<AmazonS3> {
        Arc::clone(&self.shared.store)
    }

    fn key(&self, name: &str) -> Key {
        Key::from(format!("{}/{name}", self.settings().prefix))
    }

    fn key_of(&self, digest: &Digest) -> Key {
        self.key(&format!("objects/{digest}"))
    }

    /// The longest that a request may take with all its repetitions.
    fn limit(&self) -> Duration {
        self.settings().timeout * 2
    }

    /// Runs one request and waits for its answer.
    fn wait<T: Send + 'static>(
        &self,
        action: impl Into<String>,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T, Error> {
        let limit = self.limit();
        self.run(action, timed(limit, request))
    }

    /// Runs requests, each of which has its limit, and waits for what they come to.
    fn run<T: Send + 'static>(
        &self,
        action: impl Into<String>,
        work: impl Future<Output = Result<T, Trouble>> + Send + 'static,
    ) -> Result<T, Error> {
        let answer = self.begin(work)?;
        in_place(move || answer.recv())
            .map_err(|_| Error::Stopping)?
            .map_err(|trouble| self.error(action.into(), trouble))
    }

    /// Begins requests; what they come to is received.
    fn begin<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<mpsc::Receiver<T>, Error> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let runtime = self.shared.runtime.as_ref().ok_or(Error::Stopping)?;
        runtime.spawn(async move {
            // Whoever waited may have gone.
            let _ = sender.send(work.await);
        });
        Ok(receiver)
    }

    fn error(&self, action: String, trouble: Trouble) -> Error {
        let settings = self.settings();
        let (bucket, server) = (settings.url(), settings.server());
        let (problem, refused) = match trouble {
            Trouble::Here(error) => return error,
            Trouble::Silent => {
                let what = format!("no answer within {:?}", self.limit());
                (what, false)
            }
            Trouble::Said(error) => (problem(&error), is_refusal(&error)),
        };
        if refused {
            Error::BucketRefused {
                action,
                bucket,
                server,
                problem,
            }
        } else {
            Error::BucketAway {
                action,
                bucket,
                server,
                problem,
            }
        }
    }
}

/// Why requests came to nothing.
enum Trouble {
    /// What the client of the bucket says.
    Said(object_store::Error),
    /// The time was up.
    Silent,
    /// On this side.
    Here(Error),
}

/// Waits for an answer no longer than this.
async fn timed<T>(
    limit: Duration,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer.map_err(Trouble::Said),
        Err(_) => Err(Trouble::Silent),
    }
}

/// Whether there is a bucket, and not this object in it.
fn is_missing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
        && code(&text(error)).is_none_or(|code| code != "NoSuchBucket")
}

/// Whether the server answered and said no, so that asking again is of no use.
fn is_refusal(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } | E::PermissionDenied { .. } | E::Unauthenticated { .. } => true,
        _ => {
            let text = text(error);
            let status = text.split_once("status code: 4").map(|(_, rest)| rest);
            // 408 and 429 ask to come again.
            status.is_some_and(|rest| !rest.starts_with("08") && !rest.starts_with("29"))
        }
    }
}

/// The innermost cause, which says the most.
fn text(error: &object_store::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let innermost = cause.to_string();
    let outermost = error.to_string();
    // The answer of a server is quoted on the way.
    if outermost.contains("<Code>") || outermost.contains("status code") {
        outermost
    } else {
        innermost
    }
}

/// The code of an S3 error.
fn code(text: &str) -> Option<&str> {
    element(text, "Code")
}

fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(it, _)| it)
}

/// What is wrong, on one line.
fn problem(error: &object_store::Error) -> String {
    let text = text(error);
    if let Some(code) = code(&text) {
        let message = element(&text, "Message").unwrap_or_default();
        let message = message
            .trim_start_matches("<![CDATA[")
            .trim_end_matches("]]>");
        return format!("{code}: {message}");
    }
    let line: Vec<&str> = text.split_whitespace().collect();
    line.join(" ").chars().take(300).collect()
}
