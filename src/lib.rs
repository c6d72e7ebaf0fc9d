//! Palimpsest: a gRPC distributed edit orchestrator for language models. This page is the map.
//!
//! It locates where a GPT-style model keeps a fact, rewrites it, and never loses the earlier text:
//! it traces, edits, versions, audits and rolls back factual associations, on one machine or on a
//! cluster of workers.
//!
//! It is not a training framework, not a cluster scheduler (Slurm or Kubernetes place and restart
//! its processes), and not a serving engine (it exports what vLLM, transformers and llama.cpp
//! load).
//!
//! # The way of a fact
//!
//! 1. [`datasets`] reads the file that has it; [`cli`], or any other client, creates a job
//!    (`proto/palimpsest/v1/job.proto`).
//! 2. [`api`] asks [`auth`] whether the caller may, and [`audit`] notes who asked.
//! 3. [`work`] checks what was asked, fills in what follows from it, and says the stages of the job,
//!    its units, and what a unit costs.
//! 4. [`coordinator`] cuts the open stage into tasks by that cost, looks for answers that the [`store`]
//!    has already, and leases the rest to workers, each lease under an epoch of its own.
//! 5. A [`worker`] takes the lease over its stream and makes it ready: model, version and files are
//!    fetched by digest into its [`objects`].
//! 6. [`model`] runs the prompt once clean and many times corrupted; [`causal`] restores one state a
//!    cell and reads the probability of the answer.
//! 7. [`wire`] turns the grid into a message of the contract; the worker hands it in, and again until
//!    it is acknowledged.
//! 8. The coordinator accepts it under a live epoch, once a unit; the store writes it to its log, and
//!    only then is it acknowledged and shown.
//! 9. When the last unit of a stage is there the next stage opens; after the last one the job ends.
//! 10. The client pages through the results; [`plot`] and [`npz`] make figures and arrays of them.
//!
//! # The way of an edit
//!
//! 1. The request says subject, prompt, new object and why, and the ref on which the version is to go.
//! 2. [`api`] checks it, chooses the layer and the statistics that [`stats`] collected there, and notes
//!    the version and the etag that the ref has now.
//! 3. It becomes a job of one stage, or, of a file of edits, of a stage an edit: each is computed on the
//!    version that the one before made.
//! 4. A [`worker`] loads the model with that version: the base, plus what [`version`] materialises from
//!    factors, held against its digests.
//! 5. [`edit`] finds the subject's key, optimises the value that says the new object, and solves for the
//!    smallest change that stores it.
//! 6. It measures the model before and after: efficacy, neighbours, norms. The factors and the figures
//!    are the unit's result.
//! 7. The [`coordinator`] judges the figures itself, by the stricter of its own gates and the request's;
//!    what the worker or a client says of the state counts for nothing.
//! 8. A rejected edit is kept and moves nothing. An accepted one becomes a version: its parent's list of
//!    edits and this one.
//! 9. Result, edit, version, ref movement and audit entry are one batch of the [`store`]'s log. Where the
//!    ref has moved meanwhile the edit is computed again there, if the request said so, or fails.
//! 10. Taking it back is a movement of the ref, or a version without it: nothing is ever removed.
//!
//! # The rooms, in reading order
//!
//! | room | what is in it |
//! |---|---|
//! | [`proto`] | the contract, compiled from `proto/palimpsest/v1`: read the `.proto` files first |
//! | [`invariants`] | what always holds, and where it is checked |
//! | [`work`] | the kinds of work, a file each: what is asked, stages, units, cost, ends |
//! | [`coordinator`] | the scheduler: a pure state machine, and the actor that drives it |
//! | [`store`], [`objects`] | the log and its index; files by digest, in a folder or a bucket |
//! | [`worker`] | leases: made ready, computed, handed in |
//! | [`model`] | families as data over one arithmetic; checkpoints, tokenizers, hooks |
//! | [`causal`], [`stats`], [`edit`], [`eval`] | the science, which knows nothing of the contract |
//! | [`wire`] | between the contract and the science: conversions, words, resource names |
//! | [`version`], [`audit`] | versions as lists of edits, refs; the Merkle log of who did what |
//! | [`api`], [`auth`] | the services: authorise, check, translate, call |
//! | [`web`] | the console: pages and gRPC-Web in front of any service |
//! | [`client`], [`embedded`] | the typed client; coordinator and worker inside one process |
//! | [`datasets`], [`plot`], [`npz`] | files that people bring; figures; NumPy files |
//! | [`cli`], [`config`], [`telemetry`] | commands; settings; log, metrics, traces |
//! | [`guide`] | the guides, for people: begin with [`guide::first_hour`] |
//!
//! Arrows between rooms go one way, and none makes a circle: `tests/house` has the order and holds
//! it.
//!
//! # Words
//!
//! - **Fact**: a prompt, its subject, and the object that the model says next.
//! - **Job**: what was asked. **Stage**: units of it that may run in any order on any workers; it opens
//!   when all of the stage before have results. **Unit**: the smallest piece that can be repeated.
//!   **Task**: a slice of a stage, as much as one lease gives.
//! - **Lease**: a task lent to a worker for a time. **Epoch**: the number of the loan; a result under one
//!   that is no longer live is not taken. **Credits**: how many leases a worker will hold.
//! - **Grid**: the effect of each layer at each token, for hidden states, MLPs or attention.
//! - **Key, value**: what an MLP's second matrix is asked with at the subject, and what it answers.
//!   **Key statistics**: the uncentred covariance of ordinary keys.
//! - **Edit**: one fact rewritten in one matrix, as **factors** whose product is added to it.
//!   **Gate**: a bound on a figure of an edit, without which it becomes no version.
//! - **Version**: a model and a list of edits, by digest. **Ref**: a branch or a tag, a name that points at
//!   a version. **Etag**: the movement that a ref is at.
//! - **Object**: bytes, named by their BLAKE3 digest.
//!
//! # A sweep inside one process
//!
//! The engine here is the fake one, which needs no model; with [`worker::Engine`]s of libtorch it
//! is the same.
//!
//! ```
//! use std::time::Duration;
//!
//! use palimpsest::embedded::Embedded;
//! use palimpsest::proto::v1;
//! use palimpsest::store::{Change, Options, Store};
//! use palimpsest::worker::Fake;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let folder = tempfile::tempdir()?;
//! let model = v1::Model { name: "models/none".to_owned(), ..Default::default() };
//! Store::open(folder.path())?.commit(&[Change::Model("none".to_owned(), model)])?;
//!
//! let here = Embedded::start(folder.path(), Options::default())?;
//! here.work(vec![Box::new(Fake { unit_time: Duration::ZERO })]);
//!
//! let fact = v1::Fact {
//!     prompt: "The Space Needle is in downtown".to_owned(),
//!     subject: "The Space Needle".to_owned(),
//!     ..Default::default()
//! };
//! let sweep = v1::TraceSpec {
//!     facts: vec![fact],
//!     kinds: vec![v1::Kind::Hidden as i32],
//!     noise: "0.1".to_owned(),
//!     ..Default::default()
//! };
//! let job = v1::Job {
//!     model: "models/none".to_owned(),
//!     spec: Some(sweep.into()),
//!     ..Default::default()
//! };
//! let request = v1::CreateJobRequest { job: Some(job), ..Default::default() };
//! let job = here.client().jobs().create_job(request).await?.into_inner().job.unwrap_or_default();
//!
//! let request = v1::WatchJobRequest { name: job.name.clone(), ..Default::default() };
//! let mut events = here.client().jobs().watch_job(request).await?.into_inner();
//! while events.message().await?.is_some() {}
//!
//! let request = v1::GetJobRequest { name: job.name };
//! let job = here.client().jobs().get_job(request).await?.into_inner().job.unwrap_or_default();
//! assert_eq!(job.state(), v1::JobState::Succeeded);
//! here.stop().await;
//! # Ok(())
//! # })
//! # }
//! ```

pub mod api;
pub mod audit;
pub mod auth;
mod blocking;
mod caught;
pub mod causal;
pub mod cli;
pub mod client;
pub mod config;
pub mod coordinator;
pub mod datasets;
pub mod edit;
pub mod embedded;
pub mod eval;
pub mod figures;
pub mod guide;
pub mod invariants;
pub mod model;
pub mod npz;
pub mod objects;
pub mod plot;
pub mod proto;
pub mod stats;
pub mod store;
pub mod telemetry;
mod text;
pub mod version;
pub mod web;
pub mod wire;
pub mod work;
pub mod worker;
