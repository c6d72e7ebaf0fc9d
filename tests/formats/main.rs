//! Files and messages that others read or write: the contract, facts, arrays, figures.

mod contract;
mod facts;
mod families;
mod npz;
mod plot_svg;
mod plot_terminal;
mod python_package;
mod results;
