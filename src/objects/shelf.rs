//! Named things in a bucket, each of which only one writer can make.

use std::fmt;
use std::path::Path;

use super::Error;

/// A place for named things, beside a bucket's objects. Several processes use it at once, and of
/// several that make one of the same name, one has made it.
///
/// Names are paths with `/`, and lists are in the order of their bytes. What was made is seen by all
/// from then on, in lists too. A request that fails may have been carried out, or may be later.
pub trait Shelf: fmt::Debug + Send + Sync {
    /// Makes a thing, unless there is one of that name: false then, and that one stays.
    ///
    /// # Errors
    /// [`Error::BucketAway`], [`Error::BucketRefused`].
    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, Error>;

    /// Puts a file there, whatever was there before. It is seen whole or not at all.
    ///
    /// # Errors
    /// Those of [`Shelf::create`], [`Error::Io`].
    fn put(&self, name: &str, file: &Path) -> Result<(), Error>;

    /// The bytes of things, in the order of their names here; none for one that is not there.
    ///
    /// # Errors
    /// Those of [`Shelf::create`].
    fn get(&self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error>;

    /// Writes a thing into a file. False if it is not there.
    ///
    /// # Errors
    /// Those of [`Shelf::put`].
    fn fetch(&self, name: &str, file: &Path) -> Result<bool, Error>;

    /// The names in a folder behind a name of it, in order, without the folder's own: the first
    /// `most` of them.
    ///
    /// # Errors
    /// Those of [`Shelf::create`].
    fn list(&self, folder: &str, behind: &str, most: usize) -> Result<Vec<String>, Error>;

    /// Removes things, of which some may be gone already.
    ///
    /// # Errors
    /// Those of [`Shelf::create`].
    fn remove(&self, names: &[String]) -> Result<(), Error>;

    /// Where it is, for people.
    fn place(&self) -> String;
}
