//! What an edit keeps besides its factors, for edits to come: keys and residuals, in objects.

use crate::proto::v1;

/// An object of singles, row by row.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The field that names it.
    pub field: &'static str,
    /// Its digest.
    pub digest: &'a str,
    /// Rows.
    pub rows: u32,
    /// Numbers of a row.
    pub numbers: u64,
}

impl Rows<'_> {
    /// Its size; none for more than there can be.
    pub fn bytes(&self) -> Option<u64> {
        let numbers = self.numbers.checked_mul(u64::from(self.rows));
        numbers.and_then(|numbers| numbers.checked_mul(4))
    }
}

/// The objects that an edit keeps.
pub fn rows_of(edit: &v1::Edit) -> impl Iterator<Item = Rows<'_>> {
    let keys = edit.keys.iter().map(keys_of);
    keys.chain(edit.solves.iter().flat_map(rows_of_solve))
}

/// The keys that later edits leave alone.
pub fn keys_of(keys: &v1::EditKeys) -> Rows<'_> {
    Rows {
        field: "edit.keys",
        digest: &keys.digest,
        rows: keys.columns,
        numbers: keys.inner,
    }
}

/// The keys and the residuals that a change was solved from.
pub fn rows_of_solve(solve: &v1::EditSolve) -> [Rows<'_>; 2] {
    let rows = |digest, numbers| Rows {
        field: "edit.solves",
        digest,
        rows: solve.columns,
        numbers,
    };
    [
        rows(&solve.keys, solve.inner),
        rows(&solve.residuals, solve.width),
    ]
}
