//! What has a name of its own in a bucket, beside the objects.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore as _, PutMode, PutOptions, PutPayload};

use super::super::Error;
use super::super::shelf::Shelf;
use super::{Bucket, Trouble, is_missing, timed};

/// Requests for things of a few that are on their way at a time.
const AT_ONCE: usize = 16;

impl Shelf for Bucket {
    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, Error> {
        let (store, key) = (self.store(), self.key(name));
        let payload = PutPayload::from(bytes.to_vec());
        self.wait(format!("make {name}"), async move {
            let options = PutOptions::from(PutMode::Create);
            match store.put_opts(&key, payload, options).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    fn put(&self, name: &str, file: &Path) -> Result<(), Error> {
        let unfinished = file.with_extension("sending");
        if unfinished.exists() {
            // Of a process that was killed.
            self.abort(self.key(name), &unfinished)?;
        }
        self.store_file(self.key(name), format!("store {name}"), file, &unfinished)
    }

    fn get(&self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let (store, limit) = (self.store(), self.limit());
        let keys: Vec<_> = names.iter().map(|name| self.key(name)).collect();
        self.run("read named objects", async move {
            stream::iter(keys)
                .map(|key| {
                    let store = &store;
                    timed(limit, async move {
                        match store.get(&key).await {
                            Ok(found) => Ok(Some(found.bytes().await?.to_vec())),
                            Err(error) if is_missing(&error) => Ok(None),
                            Err(error) => Err(error),
                        }
                    })
                })
                .buffered(AT_ONCE)
                .try_collect()
                .await
        })
    }

    fn fetch(&self, name: &str, file: &Path) -> Result<bool, Error> {
        let mut to = File::create(file).map_err(Error::io("create", file))?;
        let there = self.read_key(&self.key(name), &format!("fetch {name}"), |piece| {
            to.write_all(piece).map_err(Error::io("write", file))
        })?;
        to.sync_all().map_err(Error::io("flush", file))?;
        Ok(there)
    }

    fn list(&self, folder: &str, behind: &str, most: usize) -> Result<Vec<String>, Error> {
        let (store, limit) = (self.store(), self.limit());
        let (prefix, offset) = (self.key(folder), self.key(&format!("{folder}/{behind}")));
        self.run(format!("list {folder}"), async move {
            let mut names = Vec::new();
            let mut pages = match offset == prefix {
                true => store.list(Some(&prefix)),
                false => store.list_with_offset(Some(&prefix), &offset),
            };
            while names.len() < most {
                let Some(found) = timed(limit, async { Ok(pages.next().await) }).await? else {
                    break;
                };
                let found = found.map_err(Trouble::Said)?;
                names.extend(found.location.filename().map(str::to_owned));
            }
            Ok(names)
        })
    }

    fn remove(&self, names: &[String]) -> Result<(), Error> {
        let (store, limit) = (self.store(), self.limit());
        let keys: Vec<_> = names.iter().map(|name| self.key(name)).collect();
        self.run("remove named objects", async move {
            stream::iter(keys)
                .map(|key| {
                    let store = &store;
                    timed(limit, async move {
                        match store.delete(&key).await {
                            Err(error) if is_missing(&error) => Ok(()),
                            removed => removed,
                        }
                    })
                })
                .buffer_unordered(AT_ONCE)
                .try_collect()
                .await
        })
    }

    fn place(&self) -> String {
        format!("{} at {}", self, self.settings().server())
    }
}
