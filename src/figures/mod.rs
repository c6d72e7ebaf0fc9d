//! Figures of what was traced: which heat maps and curves there are of a grid and of averages over
//! facts, what they are called and how they are coloured. [`plot`](crate::plot) draws them.
//!
//! The command line and the console draw the same ones.

mod averages;
mod grid;
mod words;

pub use averages::{
    average_curves, average_maps, average_title, highest_average_map, panels, severed_curves,
};
pub use grid::{highest_map, maps, scores, starred};
pub use words::{drawn_as, is_signed, state_name, title};
