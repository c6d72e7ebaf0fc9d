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

use super::Signed;
use crate::objects::{CHUNK, Digest, Error, ObjectStore, Partial, blocking, read_piece};
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
        // Where there is a bucket, what only that has is fetched from there.
        match store.local(&name) {
            Ok(_) => return Ok(Begun::Whole),
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
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
    Here(Partial),
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
mod tests;
