//! The program as its users run it: coordinators, workers and commands are processes of their own.
//! One crate, because each more is linked for itself.

#[path = "../common/mod.rs"]
mod common;

mod audits;
mod auth;
mod bad_input;
mod command_line;
mod console;
mod deploy;
mod edit_cluster;
mod edit_sequence;
mod edits;
mod evals;
mod exports;
mod facts_out;
mod gates;
mod histories;
mod hostile;
mod kills;
mod landing;
mod local;
mod mass_edits;
mod operation;
mod pages;
mod python_client;
mod readme;
mod store;
mod sweeps;
mod system;
mod traces;
mod versions;
