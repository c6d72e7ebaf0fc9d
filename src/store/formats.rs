//! The numbers of the store's formats.
//!
//! 1 had the records in the database alone. 2 has the log beside it. 3 has versions that are stored as
//! what they add to their parents: a store is of format 2 until the first of them is written, and
//! older programs, which would take such a version for one without edits, open it until then. 4 has
//! the records of edits, versions, refs and the audit log packed: a store becomes one of format 4
//! with its next such version, and what was written before stays as it is. 5 has batches of the log
//! deflated, and stores become of it in the same way. 6 has its log in a bucket: the files in the
//! folder are a copy of it, to which nothing may be added that is not there.

/// The newest format that this program knows: that of a store whose log is in a bucket.
pub const FORMAT: u32 = SHARED;
/// The first format whose log may be in a bucket.
pub const SHARED: u32 = 6;
/// The first format whose log has deflated batches.
pub const DEFLATED: u32 = 5;
/// The first format whose records of edits, versions, refs and the audit log are packed.
pub const PACKED: u32 = 4;
/// The format of a store that has no version that stands on its parent.
pub const WITH_LOG: u32 = 2;
/// The format without a log.
pub const WITHOUT_LOG: u32 = 1;
