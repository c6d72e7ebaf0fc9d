//! Running out of the device's memory, as a value.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};

use super::error::Error;

/// Why a piece of work gave no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The device had no room; fewer rows may fit.
    OutOfMemory,
    /// Anything else.
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

/// Runs `work`, and tells an out-of-memory error of libtorch from all others.
///
/// tch turns libtorch's exceptions into panics unless every call is the checked one, and the
/// model's forward pass uses the plain ones: its only failure that depends on the data is this one.
/// All other panics go on.
pub(super) fn attempt<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // What the work holds is dropped with the panic, and its callers start over from whole tensors.
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(payload) if is_out_of_memory(&*payload) => Err(Failure::OutOfMemory),
        Err(payload) => panic::resume_unwind(payload),
    }
}

fn message(payload: &(dyn Any + Send)) -> Option<&str> {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
}

/// Whether a panic is an error of one of libtorch's allocators: CUDA, HIP and MPS say the first,
/// the CPU's the second.
pub fn is_out_of_memory(payload: &(dyn Any + Send)) -> bool {
    message(payload).is_some_and(|message| {
        message.contains("out of memory") || message.contains("can't allocate memory")
    })
}

/// A block of rows to compute: some cells with some of their noise samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub cells: std::ops::Range<usize>,
    pub samples: std::ops::Range<usize>,
}

impl Piece {
    pub fn rows(&self) -> usize {
        self.cells.len() * self.samples.len()
    }

    /// Cuts into pieces of at most `rows` rows, in order, as equal as can be: whole cells while one
    /// fits, else samples of one cell.
    fn cut(&self, rows: usize) -> Vec<Piece> {
        let rows = rows.max(1);
        let cells = even(&self.cells, (rows / self.samples.len()).max(1));
        let samples = even(&self.samples, rows);
        cells
            .into_iter()
            .flat_map(|cells| {
                samples.iter().map(move |samples| Piece {
                    cells: cells.clone(),
                    samples: samples.clone(),
                })
            })
            .collect()
    }
}

/// Cuts `range` into the fewest parts of at most `most`, which differ by one at most.
fn even(range: &std::ops::Range<usize>, most: usize) -> Vec<std::ops::Range<usize>> {
    let parts = range.len().div_ceil(most);
    (0..parts)
        .map(|part| {
            range.start + range.len() * part / parts..range.start + range.len() * (part + 1) / parts
        })
        .collect()
}

/// Room for the activations of one batch.
pub(super) struct Budget {
    bytes: Cell<u64>,
}

impl Budget {
    pub fn new(bytes: u64) -> Self {
        Self {
            bytes: Cell::new(bytes),
        }
    }

    /// Does `work` on `piece` in pieces whose rows, of `row_bytes` each, fit. When the device turns
    /// out to have less room than the budget says, the budget is cut to what it has.
    pub fn spend(
        &self,
        row_bytes: u64,
        piece: Piece,
        work: impl FnMut(&Piece) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let fits = usize::try_from(self.bytes.get() / row_bytes).unwrap_or(usize::MAX);
        let mut limit = fits.max(1);
        let before = limit;
        let result = in_pieces(piece, &mut limit, work);
        if limit < before {
            self.bytes.set(limit as u64 * row_bytes);
        }
        result
    }
}

/// Does `work` on `piece` in pieces of at most `limit` rows. Where the device has no room, the
/// limit is halved for good and the work goes on; one row that does not fit is the end.
fn in_pieces(
    piece: Piece,
    limit: &mut usize,
    mut work: impl FnMut(&Piece) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut todo = vec![piece];
    while let Some(piece) = todo.pop() {
        if piece.rows() > *limit {
            todo.extend(piece.cut(*limit).into_iter().rev());
            continue;
        }
        match attempt(|| work(&piece)) {
            Err(Failure::OutOfMemory) if piece.rows() > 1 => {
                *limit = piece.rows() / 2;
                tracing::warn!(
                    rows = piece.rows(),
                    "out of memory while tracing: going on with half the rows"
                );
                todo.push(piece);
            }
            result => result?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(cells: usize, samples: usize) -> Piece {
        Piece {
            cells: 0..cells,
            samples: 0..samples,
        }
    }

    #[test]
    fn pieces_are_as_equal_as_can_be() {
        let cells = |limit| -> Vec<usize> {
            piece(30, 10)
                .cut(limit)
                .iter()
                .map(|p| p.cells.len())
                .collect()
        };
        assert_eq!(cells(290), [15, 15]);
        assert_eq!(cells(109), [10, 10, 10]);
        let samples: Vec<_> = piece(2, 10)
            .cut(4)
            .into_iter()
            .map(|p| (p.cells, p.samples))
            .collect();
        assert_eq!(
            samples,
            [
                (0..1, 0..3),
                (0..1, 3..6),
                (0..1, 6..10),
                (1..2, 0..3),
                (1..2, 3..6),
                (1..2, 6..10)
            ]
        );
    }

    #[test]
    fn every_row_is_done_once_whatever_fits() {
        for fits in 1..=45 {
            let mut limit = 31;
            let mut done = vec![0; 9 * 5];
            in_pieces(piece(9, 5), &mut limit, |piece| {
                assert!(
                    piece.rows() <= fits,
                    "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory.\")"
                );
                for cell in piece.cells.clone() {
                    for sample in piece.samples.clone() {
                        done[cell * 5 + sample] += 1;
                    }
                }
                Ok(())
            })
            .unwrap();
            assert_eq!(done, [1; 45]);
        }
    }

    #[test]
    fn a_single_row_that_does_not_fit_is_an_error() {
        let result = in_pieces(piece(3, 2), &mut 6, |_| {
            panic!("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")
        });
        assert!(matches!(result, Err(Failure::OutOfMemory)));
    }

    #[test]
    #[should_panic(expected = "shape mismatch")]
    fn other_panics_go_on() {
        let _ = in_pieces(piece(1, 1), &mut 1, |_| panic!("shape mismatch"));
    }
}
