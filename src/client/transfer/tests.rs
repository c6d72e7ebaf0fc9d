//! Objects that go up and come down, over connections that break.

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
