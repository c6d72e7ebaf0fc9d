//! `ObjectService` over the object store.

use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::caller::principal;
use super::standing::{Holders, Place};
use super::status::{Reason, aborted, data_loss, invalid_argument, retry_later};
use crate::objects::{CHUNK, Digest, Error, ObjectStore, Partial, blocking};
use crate::proto::v1::object_service_server::ObjectService;
use crate::proto::v1::{
    QueryObjectRequest, QueryObjectResponse, ReadObjectRequest, ReadObjectResponse,
    WriteObjectRequest, WriteObjectResponse,
};

/// Bytes of an object in one message to a reader.
const PIECE: usize = 128 << 10;
/// Uploads that may be under way at a time, each with an open file, and those of one principal.
const UPLOADS: usize = 256;
const UPLOADS_OF_ONE: usize = 64;
/// How long an upload may be silent. What came of it stays, to go on from.
const SILENCE: Duration = Duration::from_secs(60);

/// Serves an [`ObjectStore`].
#[derive(Clone, Debug)]
pub struct Objects {
    store: ObjectStore,
    uploads: Arc<Holders>,
}

impl Objects {
    /// Serves this store.
    pub fn new(store: ObjectStore) -> Self {
        let uploads = Arc::default();
        Self { store, uploads }
    }

    /// Runs what waits for the disk, on a thread that may wait.
    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ObjectStore) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let store = self.store.clone();
        on_disk(move || work(&store)).await
    }
}

impl Objects {
    /// The places of an upload: its principal's, and one of all.
    fn upload(&self, principal: &str) -> Result<[Place; 2], Status> {
        let of_one = self.uploads.take(principal, UPLOADS_OF_ONE);
        // No principal has an empty name.
        match (of_one, self.uploads.take("", UPLOADS)) {
            (Some(one), Some(all)) => Ok([one, all]),
            (one, _) => {
                let (who, most) = match one {
                    None => (principal, UPLOADS_OF_ONE),
                    Some(_) => ("all clients", UPLOADS),
                };
                let message = format!("{who} may write {most} objects at a time");
                let metadata = [("limit", most.to_string())];
                let wait = Duration::from_secs(1);
                Err(retry_later(Reason::TooMuchHeld, message, wait, metadata))
            }
        }
    }

    async fn piece(&self, digest: Digest, offset: u64, length: usize) -> Result<Vec<u8>, Status> {
        let store = self.store.clone();
        super::blocking(move || {
            let file = store.open_object(&digest)?;
            let mut piece = vec![0; length];
            file.read_exact_at(&mut piece, offset)
                .map_err(|error| data_loss(&Error::io("read", store.path(&digest))(error)))?;
            Ok(piece)
        })
        .await
    }
}

#[tonic::async_trait]
impl ObjectService for Objects {
    async fn query_object(
        &self,
        request: Request<QueryObjectRequest>,
    ) -> Result<Response<QueryObjectResponse>, Status> {
        let digest = parse(&request.get_ref().digest)?;
        let response = self
            .with_store(move |store| {
                // What is said to be whole may be referred to: it has to be durable.
                Ok(match store.durable_size(&digest)? {
                    Some(committed_size) => QueryObjectResponse {
                        committed_size,
                        complete: true,
                    },
                    None => QueryObjectResponse {
                        committed_size: store.partial_size(&digest)?,
                        complete: false,
                    },
                })
            })
            .await?;
        Ok(Response::new(response))
    }

    type ReadObjectStream = Pin<Box<dyn Stream<Item = Result<ReadObjectResponse, Status>> + Send>>;

    async fn read_object(
        &self,
        request: Request<ReadObjectRequest>,
    ) -> Result<Response<Self::ReadObjectStream>, Status> {
        let ReadObjectRequest { digest, mut offset } = request.into_inner();
        let digest = parse(&digest)?;
        let size = self
            .with_store(move |store| {
                let file = store.open_object(&digest)?;
                // The open file, not the name, whose file may be replaced.
                let metadata = file.metadata();
                Ok(metadata
                    .map_err(Error::io("read", store.path(&digest)))?
                    .len())
            })
            .await?;
        if offset > size {
            return Err(Error::PastEnd {
                digest,
                offset,
                size,
            }
            .into());
        }
        // The file is opened for every piece, which is small: a stream that nobody reads must hold
        // neither a descriptor nor megabytes, and there may be thousands of them.
        let objects = self.clone();
        Ok(Response::new(Box::pin(async_stream::try_stream! {
            while offset < size {
                let length = (size - offset).min(PIECE as u64) as usize;
                let data = objects.piece(digest, offset, length).await?;
                offset += length as u64;
                yield ReadObjectResponse { data };
            }
        })))
    }

    async fn write_object(
        &self,
        request: Request<Streaming<WriteObjectRequest>>,
    ) -> Result<Response<WriteObjectResponse>, Status> {
        let principal = principal(request.metadata());
        let mut stream = request.into_inner();
        let Some(first) = stream.message().await? else {
            let problem = "no message came: the first one names the object";
            return Err(invalid_argument("digest", problem));
        };
        let digest = parse(&first.digest)?;
        let size = first.size;
        let respond = || {
            Ok(Response::new(WriteObjectResponse {
                committed_size: size,
            }))
        };

        if let Some(stored) = self
            .with_store(move |store| store.durable_size(&digest))
            .await?
        {
            if stored != size {
                let problem =
                    format!("is {size}, but object {digest} is stored and has {stored} bytes");
                return Err(invalid_argument("size", problem));
            }
            return respond();
        }

        let _upload = self.upload(&principal)?;
        let _admission = self
            .with_store(move |store| store.admit(&digest, size))
            .await?;
        let mut partial = self.with_store(move |store| store.partial(&digest)).await?;
        let mut message = Some(first);
        while let Some(WriteObjectRequest {
            digest: named,
            offset,
            data,
            ..
        }) = message
        {
            if !named.is_empty() && named != digest.to_string() {
                discard(partial).await?;
                let problem = format!(
                    "is {named:?} in a later message, but the first names {digest}: write one object a call"
                );
                return Err(invalid_argument("digest", problem));
            }
            if data.len() > CHUNK {
                let problem = format!(
                    "has {} bytes; send at most {CHUNK} in one message",
                    data.len()
                );
                return Err(invalid_argument("data", problem));
            }
            if !data.is_empty() {
                partial = on_disk(move || partial.append(offset, &data).map(|()| partial)).await?;
            }
            if partial.size() > size {
                break;
            }
            // A broken stream leaves what came, to go on from.
            message = next(&mut stream).await?;
        }
        let received = partial.size();
        // A call that its client dropped ends here like one that the client ended (tonic gives no
        // error for it). What came stays, unless it cannot become the object.
        if received < size && !partial.is_whole() {
            return Err(Error::Incomplete {
                digest,
                committed: received,
                size,
            }
            .into());
        }
        if received != size {
            discard(partial).await?;
            return Err(Error::SizeMismatch {
                digest,
                announced: size,
                received,
            }
            .into());
        }
        on_disk(move || partial.finish()).await?;
        respond()
    }
}

/// The next message of an upload, if it comes in time.
async fn next(
    stream: &mut Streaming<WriteObjectRequest>,
) -> Result<Option<WriteObjectRequest>, Status> {
    match tokio::time::timeout(SILENCE, stream.message()).await {
        Ok(message) => message,
        Err(_) => Err(aborted(
            Reason::ObjectIncomplete,
            format!("nothing came for {} s", SILENCE.as_secs()),
        )),
    }
}

fn parse(digest: &str) -> Result<Digest, Status> {
    digest.parse().map_err(Status::from)
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Status> {
    blocking(work).await.map_err(Status::from)
}

async fn discard(partial: Partial) -> Result<(), Status> {
    on_disk(move || partial.discard()).await
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test owns its tasks
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use crate::client::{Client, Signed};
    use crate::proto::v1::object_service_client::ObjectServiceClient;
    use crate::proto::v1::object_service_server::ObjectServiceServer;
    use std::net::SocketAddr;
    use tonic::Code;
    use tonic::transport::server::TcpIncoming;
    use tonic::transport::{Endpoint, Server};
    use tonic_types::StatusExt;

    /// A server on a port of its own, which lives as long as the test's runtime.
    pub(crate) fn serve(store: &ObjectStore) -> SocketAddr {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap())
            .unwrap()
            .with_nodelay(Some(true));
        let address = incoming.local_addr().unwrap();
        let service = ObjectServiceServer::new(Objects::new(store.clone()));
        let server = Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        address
    }

    pub(crate) fn client(address: SocketAddr) -> ObjectServiceClient<Signed> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Client::new(endpoint.connect_lazy()).objects()
    }

    fn start() -> (tempfile::TempDir, ObjectStore, ObjectServiceClient<Signed>) {
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(folder.path()).unwrap();
        let client = client(serve(&store));
        (folder, store, client)
    }

    fn chunk(digest: &str, size: u64, offset: u64, data: &[u8]) -> WriteObjectRequest {
        WriteObjectRequest {
            digest: digest.to_owned(),
            size,
            offset,
            data: data.to_vec(),
        }
    }

    async fn write(
        client: &mut ObjectServiceClient<Signed>,
        chunks: Vec<WriteObjectRequest>,
    ) -> Result<u64, Status> {
        let response = client.write_object(tokio_stream::iter(chunks)).await?;
        Ok(response.into_inner().committed_size)
    }

    /// Open files of this process below a folder.
    fn open_below(folder: &std::path::Path) -> usize {
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let named = open.filter_map(|it| std::fs::read_link(it.ok()?.path()).ok());
        named.filter(|path| path.starts_with(folder)).count()
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_holds_no_open_file() {
        use futures::StreamExt as _;
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(folder.path()).unwrap();
        let root = folder.path().canonicalize().unwrap();
        let objects = Objects::new(store.clone());
        let bytes = vec![7; 20 * PIECE];
        let digest = Digest::of(&bytes);
        let mut partial = store.partial(&digest).unwrap();
        partial.append(0, &bytes).unwrap();
        partial.finish().unwrap();
        let idle = open_below(&root);
        let mut held = Vec::new();
        for n in 0..300 {
            let request = Request::new(ReadObjectRequest {
                digest: digest.to_string(),
                offset: 0,
            });
            let stream = ObjectService::read_object(&objects, request).await.unwrap();
            let mut stream = stream.into_inner();
            // Some have given a piece, as a window lets them, and then nobody comes.
            if n % 2 == 0 {
                let piece = stream.next().await.unwrap().unwrap();
                assert_eq!(piece.data.len(), PIECE);
            }
            held.push(stream);
        }
        assert_eq!(open_below(&root), idle);
        // Each goes on where it was.
        let last: Vec<_> = held.pop().unwrap().collect().await;
        assert_eq!(last.len(), 20);
    }

    fn reason(status: &Status) -> String {
        status
            .get_error_details()
            .error_info()
            .unwrap()
            .reason
            .clone()
    }

    #[tokio::test]
    async fn a_written_object_is_read_back_from_any_offset() {
        let (_folder, store, mut client) = start();
        let bytes: Vec<u8> = (0..2 * CHUNK + 100).map(|i| (i % 249) as u8).collect();
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        let name = digest.to_string();
        let mut chunks: Vec<_> = bytes
            .chunks(CHUNK)
            .enumerate()
            .map(|(i, data)| chunk("", 0, (i * CHUNK) as u64, data))
            .collect();
        chunks[0].digest = name.clone();
        chunks[0].size = size;
        assert_eq!(write(&mut client, chunks).await.unwrap(), size);
        assert_eq!(store.read(&digest).unwrap(), bytes);

        let request = QueryObjectRequest {
            digest: name.clone(),
        };
        let answer = client.query_object(request).await.unwrap().into_inner();
        assert_eq!((answer.committed_size, answer.complete), (size, true));

        for offset in [0, 1, CHUNK as u64, size - 1, size] {
            let request = ReadObjectRequest {
                digest: name.clone(),
                offset,
            };
            let mut stream = client.read_object(request).await.unwrap().into_inner();
            let mut read = Vec::new();
            while let Some(message) = stream.message().await.unwrap() {
                assert!(message.data.len() <= CHUNK);
                read.extend(message.data);
            }
            assert!(read == bytes[offset as usize..], "from {offset}");
        }
        // Again, without its bytes.
        assert_eq!(
            write(&mut client, vec![chunk(&name, size, 0, b"")])
                .await
                .unwrap(),
            size
        );
    }

    #[tokio::test]
    async fn the_empty_object_is_an_object() {
        let (_folder, store, mut client) = start();
        let digest = Digest::of(b"");
        let only = vec![chunk(&digest.to_string(), 0, 0, b"")];
        assert_eq!(write(&mut client, only).await.unwrap(), 0);
        assert_eq!(store.size(&digest).unwrap(), Some(0));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_and_not_kept() {
        let (_folder, store, mut client) = start();
        let digest = Digest::of(b"abcdef");
        let name = digest.to_string();
        let other = Digest::of(b"other").to_string();
        let cases = [
            (
                vec![chunk("ABC", 6, 0, b"abcdef")],
                "INVALID_FIELD",
                "digest",
            ),
            (vec![], "INVALID_FIELD", "digest"),
            (
                vec![chunk(&name, 6, 0, b"abcdeF")],
                "DIGEST_MISMATCH",
                "digest",
            ),
            (vec![chunk(&name, 7, 0, b"abcdef")], "SIZE_MISMATCH", "size"),
            (vec![chunk(&name, 5, 0, b"abcdef")], "SIZE_MISMATCH", "size"),
            (
                vec![chunk(&name, 6, 0, b"abc"), chunk(&other, 6, 3, b"def")],
                "INVALID_FIELD",
                "digest",
            ),
            (
                vec![chunk(&name, 6, 0, &vec![0; CHUNK + 1])],
                "INVALID_FIELD",
                "data",
            ),
        ];
        for (chunks, expected, field) in cases {
            let status = write(&mut client, chunks).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            assert_eq!(reason(&status), expected, "{status:?}");
            let details = status.get_error_details();
            assert_eq!(
                details.bad_request().unwrap().field_violations[0].field,
                field
            );
            assert_eq!(store.partial_size(&digest).unwrap(), 0);
            assert!(!store.contains(&digest).unwrap());
        }
    }

    #[tokio::test]
    async fn an_offset_elsewhere_is_aborted_and_what_was_there_stays() {
        let (_folder, store, mut client) = start();
        let digest = Digest::of(b"abcdef");
        let name = digest.to_string();
        let mut partial = store.partial(&digest).unwrap();
        partial.append(0, b"abc").unwrap();

        // While it is being written, nobody else can.
        let rest = || vec![chunk(&name, 6, 3, b"def")];
        let status = write(&mut client, rest()).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Aborted, "OBJECT_BUSY")
        );
        drop(partial);

        let status = write(&mut client, vec![chunk(&name, 6, 4, b"ef")])
            .await
            .unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Aborted, "WRONG_OFFSET")
        );
        let request = QueryObjectRequest {
            digest: name.clone(),
        };
        let answer = client.query_object(request).await.unwrap().into_inner();
        assert_eq!((answer.committed_size, answer.complete), (3, false));
        assert_eq!(write(&mut client, rest()).await.unwrap(), 6);
        assert_eq!(store.read(&digest).unwrap(), b"abcdef");

        let status = write(&mut client, vec![chunk(&name, 9, 0, b"")])
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }

    #[tokio::test]
    async fn a_write_that_ends_early_keeps_what_came() {
        let (_folder, store, mut client) = start();
        let digest = Digest::of(b"abcdef");
        let name = digest.to_string();
        let status = write(&mut client, vec![chunk(&name, 6, 0, b"abcd")])
            .await
            .unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Aborted, "OBJECT_INCOMPLETE")
        );
        assert_eq!(store.partial_size(&digest).unwrap(), 4);
        let rest = vec![chunk(&name, 6, 4, b"ef")];
        assert_eq!(write(&mut client, rest).await.unwrap(), 6);
    }

    #[tokio::test]
    async fn reading_what_is_not_there_says_so() {
        let (_folder, store, mut client) = start();
        let digest = Digest::of(b"abc").to_string();
        let request = ReadObjectRequest {
            digest: digest.clone(),
            offset: 0,
        };
        let status = client.read_object(request).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::NotFound, "NOT_FOUND")
        );
        store.put(b"abc").unwrap();
        let request = ReadObjectRequest { digest, offset: 4 };
        let status = client.read_object(request).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::OutOfRange, "OFFSET_PAST_END")
        );
    }
}
