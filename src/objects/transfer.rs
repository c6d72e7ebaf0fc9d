//! Moving objects over gRPC, from the side that calls.
//!
//! Both directions go on where a broken stream stopped, and try again by themselves for as long
//! as something comes through.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{CHUNK, Digest, Error, ObjectStore, blocking, read_piece};
use crate::client::Signed;
use crate::proto::v1::object_service_client::ObjectServiceClient;
use crate::proto::v1::{QueryObjectRequest, ReadObjectRequest, WriteObjectRequest};

/// Attempts without a byte of progress after which a transfer is given up: 24 seconds of waiting,
/// in which a coordinator can be restarted.
const ATTEMPTS: u32 = 8;
/// The wait after the first of them; each further one is twice as long, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// Uploads the file at `path`, whose name `digest` is, unless the other side has it.
///
/// `progress` is told how many bytes are at the other side or on their way; it may step back when
/// a stream breaks.
///
/// # Errors
/// [`Error::Transfer`] when the other side refuses the object (the file's bytes do not have the
/// digest, its disk is full) or cannot be reached; [`Error::Changed`] or [`Error::Io`] when the
/// file cannot be read.
pub async fn upload(
    mut client: ObjectServiceClient<Signed>,
    digest: &Digest,
    path: &Path,
    progress: impl Fn(u64) + Send + Sync,
) -> Result<(), Error> {
    let source = path.to_owned();
    let (file, size) = blocking(move || {
        let file = File::open(&source).map_err(Error::io("open", &source))?;
        let metadata = file.metadata().map_err(Error::io("read", &source))?;
        Ok((Arc::new(file), metadata.len()))
    })
    .await?;
    let mut attempts = Attempts::default();
    loop {
        match send(
            &mut client,
            digest,
            path,
            &file,
            size,
            &mut attempts,
            &progress,
        )
        .await
        {
            Ok(()) => return Ok(()),
            Err(failure) => attempts.again("upload", digest, failure).await?,
        }
    }
}

/// One attempt of [`upload`].
async fn send(
    client: &mut ObjectServiceClient<Signed>,
    digest: &Digest,
    path: &Path,
    file: &Arc<File>,
    size: u64,
    attempts: &mut Attempts,
    progress: &(impl Fn(u64) + Send + Sync),
) -> Result<(), Failure> {
    let request = QueryObjectRequest {
        digest: digest.to_string(),
    };
    let answer = client.query_object(request).await?.into_inner();
    if answer.complete {
        progress(size);
        return Ok(());
    }
    let start = answer.committed_size;
    attempts.begin(start);
    progress(start);

    // Two pieces are read ahead while one is on its way.
    let (pieces, queue) = mpsc::channel(2);
    let feed = async move {
        let mut offset = start;
        let mut name = digest.to_string();
        loop {
            let length = size.saturating_sub(offset).min(CHUNK as u64) as usize;
            let data =
                read_piece(file, offset, length)
                    .await
                    .map_err(|error| match error.kind() {
                        io::ErrorKind::UnexpectedEof => Error::Changed { path: path.into() },
                        _ => Error::io("read", path)(error),
                    })?;
            let piece = WriteObjectRequest {
                digest: std::mem::take(&mut name),
                size,
                offset,
                data,
            };
            if pieces.send(piece).await.is_err() {
                // The call has ended and says why.
                return Ok(());
            }
            offset += length as u64;
            progress(offset);
            if offset >= size {
                return Ok(());
            }
        }
    };
    let call = client.write_object(ReceiverStream::new(queue));
    tokio::pin!(call);
    tokio::select! {
        answer = &mut call => { answer?; }
        fed = feed => {
            fed.map_err(Failure::Here)?;
            call.await?;
        }
    }
    Ok(())
}

/// Downloads an object of `size` bytes into a store, unless it is there. The store keeps what
/// came if it breaks off, and never keeps bytes of another digest.
///
/// `progress` is told how many bytes are there; it may step back when a stream breaks.
///
/// # Errors
/// [`Error::Transfer`] when the other side does not have the object or cannot be reached;
/// [`Error::Mismatch`] or [`Error::SizeMismatch`] when what it sent is not the object;
/// [`Error::NoSpace`] or [`Error::Io`] when the store cannot be written.
pub async fn download(
    mut client: ObjectServiceClient<Signed>,
    digest: &Digest,
    size: u64,
    into: &ObjectStore,
    progress: impl Fn(u64) + Send + Sync,
) -> Result<(), Error> {
    let mut attempts = Attempts::default();
    loop {
        match receive(&mut client, digest, size, into, &mut attempts, &progress).await {
            Ok(()) => return Ok(()),
            Err(failure) => attempts.again("download", digest, failure).await?,
        }
    }
}

/// One attempt of [`download`].
async fn receive(
    client: &mut ObjectServiceClient<Signed>,
    digest: &Digest,
    size: u64,
    into: &ObjectStore,
    attempts: &mut Attempts,
    progress: &(impl Fn(u64) + Send + Sync),
) -> Result<(), Failure> {
    let (store, name) = (into.clone(), *digest);
    let begun = blocking(move || {
        if store.contains(&name)? {
            return Ok(Begun::Whole);
        }
        match store.partial(&name) {
            // Another process fetches it too.
            Err(Error::Busy { .. }) => Ok(Begun::Elsewhere(store.partial_size(&name)?)),
            partial => partial.map(Begun::Here),
        }
    })
    .await?;
    let mut partial = match begun {
        Begun::Whole => {
            progress(size);
            return Ok(());
        }
        Begun::Elsewhere(reached) => {
            attempts.begin(reached);
            progress(reached);
            return Err(Failure::Here(Error::Busy { digest: *digest }));
        }
        Begun::Here(partial) => partial,
    };
    let offset = partial.size();
    attempts.begin(offset);
    progress(offset);

    if offset < size {
        let request = ReadObjectRequest {
            digest: digest.to_string(),
            offset,
        };
        let mut stream = client.read_object(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            partial = blocking(move || {
                partial.append(partial.size(), &message.data)?;
                Ok(partial)
            })
            .await?;
            progress(partial.size());
            if partial.size() > size {
                break;
            }
        }
    }
    let received = partial.size();
    if received != size {
        blocking(move || partial.discard()).await?;
        return Err(Failure::Here(Error::SizeMismatch {
            digest: *digest,
            announced: size,
            received,
        }));
    }
    blocking(move || partial.finish()).await?;
    Ok(())
}

/// How an attempt of [`download`] finds the store.
enum Begun {
    /// The object is there.
    Whole,
    /// Another writer has this many bytes of it.
    Elsewhere(u64),
    /// It is this caller's to write.
    Here(super::Partial),
}

/// Why an attempt failed.
enum Failure {
    /// On this side.
    Here(Error),
    /// On the other side, or on the way.
    There(Status),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::There(status)
    }
}

/// Counts the attempts at one transfer.
#[derive(Default)]
struct Attempts {
    /// Attempts that failed since the last progress.
    failed: u32,
    /// Where the newest attempt began.
    start: u64,
    /// The farthest that one began.
    farthest: u64,
}

impl Attempts {
    /// An attempt begins with this many bytes transferred.
    fn begin(&mut self, start: u64) {
        self.start = start;
        if start > self.farthest {
            self.farthest = start;
            self.failed = 0;
        }
    }

    /// Waits until it is time to try again, or gives up.
    async fn again(
        &mut self,
        action: &'static str,
        digest: &Digest,
        failure: Failure,
    ) -> Result<(), Error> {
        self.failed += 1;
        let may_pass = self.may_pass(&failure);
        let error = match failure {
            Failure::Here(error) => error,
            Failure::There(status) => Error::Transfer {
                action,
                digest: *digest,
                attempts: self.failed,
                status,
            },
        };
        if !may_pass || self.failed >= ATTEMPTS {
            return Err(error);
        }
        tracing::debug!(%error, attempt = self.failed, "a transfer broke and is tried again");
        let wait = FIRST_WAIT * 2_u32.pow(self.failed - 1);
        tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
        Ok(())
    }

    /// Whether another attempt may get past this.
    fn may_pass(&self, failure: &Failure) -> bool {
        // What came before this attempt may have been another writer's, or torn by a crash. It is
        // discarded now; the bytes from this side alone are another matter.
        let began_with_others_bytes = self.start > 0;
        match failure {
            Failure::Here(Error::Busy { .. }) => true,
            Failure::Here(Error::Mismatch { .. } | Error::SizeMismatch { .. }) => {
                began_with_others_bytes
            }
            Failure::Here(_) => false,
            Failure::There(status) => match status.code() {
                Code::Unavailable | Code::Aborted | Code::Cancelled | Code::DeadlineExceeded => {
                    true
                }
                // A broken connection; a server that fails says why in the details.
                Code::Unknown | Code::Internal => status.details().is_empty(),
                Code::InvalidArgument => began_with_others_bytes,
                _ => false,
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test owns its tasks
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::objects::tests::{client, serve};
    use std::net::SocketAddr;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tonic_types::StatusExt;

    const MIB: usize = 1 << 20;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect()
    }

    struct Setup {
        folder: tempfile::TempDir,
        /// The server's.
        store: ObjectStore,
        server: SocketAddr,
    }

    impl Setup {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = ObjectStore::open(folder.path().join("server")).unwrap();
            let server = serve(&store);
            Self {
                folder,
                store,
                server,
            }
        }

        fn file(&self, bytes: &[u8]) -> std::path::PathBuf {
            let path = self.folder.path().join("source");
            std::fs::write(&path, bytes).unwrap();
            path
        }

        fn cache(&self) -> ObjectStore {
            ObjectStore::open(self.folder.path().join("cache")).unwrap()
        }
    }

    /// Stands before the server and cuts the first connections after so many bytes, counted in
    /// both directions. Counts what comes through.
    async fn cutting_proxy(server: SocketAddr, cuts: &[usize]) -> (SocketAddr, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passed = Arc::new(AtomicU64::new(0));
        let (count, cuts) = (Arc::clone(&passed), cuts.to_vec());
        tokio::spawn(async move {
            let mut cuts = cuts.into_iter();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut far = TcpStream::connect(server).await.unwrap();
                let mut left = cuts.next().unwrap_or(usize::MAX);
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
                    while left > 0 {
                        let (n, to, buffer) = tokio::select! {
                            n = near.read(&mut up) => (n.unwrap_or(0), &mut far, &up),
                            n = far.read(&mut down) => (n.unwrap_or(0), &mut near, &down),
                        };
                        if n == 0 || to.write_all(&buffer[..n]).await.is_err() {
                            break;
                        }
                        count.fetch_add(n as u64, Ordering::Relaxed);
                        left = left.saturating_sub(n);
                    }
                });
            }
        });
        (address, passed)
    }

    #[tokio::test]
    async fn an_object_goes_up_and_comes_down() {
        let setup = Setup::new();
        for length in [0, 1, MIB, 3 * MIB + 5] {
            let bytes = bytes(length);
            let digest = Digest::of(&bytes);
            let path = setup.file(&bytes);
            let reports = Mutex::new(Vec::new());
            let progress = |n| reports.lock().unwrap().push(n);
            upload(client(setup.server), &digest, &path, progress)
                .await
                .unwrap();
            assert_eq!(setup.store.read(&digest).unwrap(), bytes);
            let reported = std::mem::take(&mut *reports.lock().unwrap());
            assert!(reported.is_sorted() && reported.last() == Some(&(length as u64)));

            let cache = setup.cache();
            for _ in 0..2 {
                download(
                    client(setup.server),
                    &digest,
                    length as u64,
                    &cache,
                    progress,
                )
                .await
                .unwrap();
                assert_eq!(cache.read(&digest).unwrap(), bytes);
                assert_eq!(reports.lock().unwrap().last(), Some(&(length as u64)));
            }
        }
    }

    #[tokio::test]
    async fn a_broken_upload_goes_on_where_it_stopped() {
        let setup = Setup::new();
        let bytes = bytes(12 * MIB);
        let digest = Digest::of(&bytes);
        let (proxy, passed) = cutting_proxy(setup.server, &[5 * MIB, 5 * MIB]).await;
        upload(client(proxy), &digest, &setup.file(&bytes), |_| {})
            .await
            .unwrap();
        assert_eq!(setup.store.read(&digest).unwrap(), bytes);
        // Beginning anew each time would be 5 + 5 + 12 MiB.
        let passed = passed.load(Ordering::Relaxed);
        assert!(
            passed < 16 * MIB as u64,
            "{passed} bytes for an object of 12 MiB"
        );
    }

    #[tokio::test]
    async fn a_broken_download_goes_on_where_it_stopped() {
        let setup = Setup::new();
        let bytes = bytes(12 * MIB);
        let digest = setup.store.put(&bytes).unwrap();
        let (proxy, passed) = cutting_proxy(setup.server, &[5 * MIB, 5 * MIB]).await;
        let cache = setup.cache();
        download(client(proxy), &digest, bytes.len() as u64, &cache, |_| {})
            .await
            .unwrap();
        assert_eq!(cache.read(&digest).unwrap(), bytes);
        let passed = passed.load(Ordering::Relaxed);
        assert!(
            passed < 16 * MIB as u64,
            "{passed} bytes for an object of 12 MiB"
        );
    }

    #[tokio::test]
    async fn an_upload_that_is_dropped_leaves_what_came() {
        let setup = Setup::new();
        let bytes = bytes(12 * MIB);
        let digest = Digest::of(&bytes);
        let path = setup.file(&bytes);
        let (sent, mut stopped) = tokio::sync::watch::channel(0);
        {
            let progress = move |n| {
                sent.send_replace(n);
            };
            let transfer = upload(client(setup.server), &digest, &path, progress);
            // The last pieces may not be there yet: up to four are queued on the way.
            tokio::select! {
                _ = transfer => {}
                _ = stopped.wait_for(|n| *n >= 8 * MIB as u64) => {}
            }
        }
        // The server hears of it a moment later; the lock goes with its writer.
        let partial = loop {
            match setup.store.partial(&digest) {
                Ok(partial) => break partial,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let kept = partial.size();
        assert!(kept > 0 && kept < 12 * MIB as u64, "{kept}");
        drop(partial);
        upload(client(setup.server), &digest, &path, |_| {})
            .await
            .unwrap();
        assert_eq!(setup.store.read(&digest).unwrap(), bytes);
    }

    #[tokio::test]
    async fn a_file_under_a_wrong_name_is_refused_at_once() {
        let setup = Setup::new();
        let digest = Digest::of(b"right");
        let error = upload(client(setup.server), &digest, &setup.file(b"wrong"), |_| {})
            .await
            .unwrap_err();
        let Error::Transfer {
            status,
            attempts: 1,
            ..
        } = &error
        else {
            panic!("{error}");
        };
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "DIGEST_MISMATCH");
        assert!(error.to_string().contains("discarded"), "{error}");
        assert_eq!(setup.store.partial_size(&digest).unwrap(), 0);
    }

    #[tokio::test]
    async fn a_wrong_beginning_is_thrown_away_and_the_transfer_begun_anew() {
        let setup = Setup::new();
        let bytes = bytes(2 * MIB);
        let digest = Digest::of(&bytes);
        // Of another's making, or torn; longer than the object in the second round.
        for torn in [MIB, 3 * MIB] {
            let mut partial = setup.store.partial(&digest).unwrap();
            partial.append(0, &vec![0; torn]).unwrap();
            drop(partial);
            upload(client(setup.server), &digest, &setup.file(&bytes), |_| {})
                .await
                .unwrap();
            setup.store.verify(&digest).unwrap();

            let cache = setup.cache();
            let mut partial = cache.partial(&digest).unwrap();
            partial.append(0, &vec![0; torn]).unwrap();
            drop(partial);
            download(
                client(setup.server),
                &digest,
                bytes.len() as u64,
                &cache,
                |_| {},
            )
            .await
            .unwrap();
            cache.verify(&digest).unwrap();
            std::fs::remove_file(setup.store.path(&digest)).unwrap();
            std::fs::remove_file(cache.path(&digest)).unwrap();
        }
    }

    #[tokio::test]
    async fn a_server_that_sends_other_bytes_is_found_out() {
        let setup = Setup::new();
        let digest = setup.store.put(b"the Eiffel Tower").unwrap();
        let path = setup.store.path(&digest);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"the Eiffel Towel").unwrap();
        let cache = setup.cache();
        let error = download(client(setup.server), &digest, 16, &cache, |_| {})
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }), "{error}");
        assert!(!cache.contains(&digest).unwrap());
        assert_eq!(cache.partial_size(&digest).unwrap(), 0);
    }

    #[tokio::test]
    async fn two_that_transfer_the_same_object_both_get_it() {
        let setup = Setup::new();
        let bytes = bytes(6 * MIB);
        let digest = Digest::of(&bytes);
        let path = setup.file(&bytes);
        let up = || upload(client(setup.server), &digest, &path, |_| {});
        let (first, second) = tokio::join!(up(), up());
        first.unwrap();
        second.unwrap();
        assert_eq!(setup.store.read(&digest).unwrap(), bytes);
        let cache = setup.cache();
        let down = || {
            download(
                client(setup.server),
                &digest,
                bytes.len() as u64,
                &cache,
                |_| {},
            )
        };
        let (first, second) = tokio::join!(down(), down());
        first.unwrap();
        second.unwrap();
        assert_eq!(cache.read(&digest).unwrap(), bytes);
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_asked_for_again() {
        let setup = Setup::new();
        let digest = Digest::of(b"nowhere");
        let error = download(client(setup.server), &digest, 7, &setup.cache(), |_| {})
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::Transfer { attempts: 1, status, .. } if status.code() == Code::NotFound),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_server_that_stays_away_is_given_up_on() {
        let digest = Digest::of(b"x");
        let away = || Failure::There(Status::unavailable("connection refused"));
        let mut attempts = Attempts {
            failed: ATTEMPTS - 1,
            ..Attempts::default()
        };
        let error = attempts.again("upload", &digest, away()).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("cannot upload object") && text.contains("connection refused"),
            "{text}"
        );
        assert!(matches!(
            error,
            Error::Transfer {
                attempts: ATTEMPTS,
                ..
            }
        ));
        // With a byte of progress, all attempts are there again.
        attempts.begin(1);
        attempts.again("upload", &digest, away()).await.unwrap();
        assert_eq!(attempts.failed, 1);
    }
}
