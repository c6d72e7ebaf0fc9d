//! The roles, and the one table of what each may call.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

/// What somebody is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Reads: jobs, results, models, versions, the audit log.
    Viewer,
    /// Also imports models, submits and cancels jobs.
    Submitter,
    /// Also edits facts, and moves refs.
    Editor,
    /// All that people do.
    Admin,
    /// Takes leases and hands in results; no person.
    Worker,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Viewer,
        Self::Submitter,
        Self::Editor,
        Self::Admin,
        Self::Worker,
    ];

    /// With its article: `an editor`.
    pub fn described(self) -> String {
        described(self.as_str())
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Submitter => "submitter",
            Self::Editor => "editor",
            Self::Admin => "admin",
            Self::Worker => "worker",
        }
    }
}

/// A role's name with its article.
pub fn described(role: &str) -> String {
    let article = match role.starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => "an",
        false => "a",
    };
    format!("{article} {role}")
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| "give viewer, submitter, editor, admin or worker".to_owned())
    }
}

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Anybody, without showing anything: probes.
    Anybody,
    /// These roles.
    Roles(&'static [Role]),
}

use Role::{Admin, Editor, Submitter, Viewer, Worker};

const KNOWN: Who = Who::Roles(&[Viewer, Submitter, Editor, Admin, Worker]);
const READ: Who = Who::Roles(&[Viewer, Submitter, Editor, Admin]);
const SUBMIT: Who = Who::Roles(&[Submitter, Editor, Admin]);
const EDIT: Who = Who::Roles(&[Editor, Admin]);
const ADMINISTER: Who = Who::Roles(&[Admin]);
const WORK: Who = Who::Roles(&[Worker]);
/// Objects are immutable and named by their content: who may submit a model may store its files,
/// and a worker what it computed.
const STORE: Who = Who::Roles(&[Submitter, Editor, Admin, Worker]);

/// How a worker comes in.
pub const CONNECT: &str = "palimpsest.v1.WorkerService/Connect";

/// One row a method. A method without a row can be called by nobody, and fails the tests.
pub const METHODS: &[(&str, Who)] = &[
    ("grpc.health.v1.Health/Check", Who::Anybody),
    ("grpc.health.v1.Health/Watch", Who::Anybody),
    (
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        KNOWN,
    ),
    (
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        KNOWN,
    ),
    ("palimpsest.v1.AuditService/GetAuditCheckpoint", READ),
    ("palimpsest.v1.AuditService/GetReceipt", READ),
    ("palimpsest.v1.AuditService/ListAuditEntries", READ),
    ("palimpsest.v1.AuditService/ProveAuditConsistency", READ),
    ("palimpsest.v1.AuditService/ProveAuditEntry", READ),
    ("palimpsest.v1.AuditService/VerifyAuditLog", READ),
    ("palimpsest.v1.AuditService/WatchAuditEntries", READ),
    ("palimpsest.v1.JobService/CancelJob", SUBMIT),
    ("palimpsest.v1.JobService/CreateJob", SUBMIT),
    ("palimpsest.v1.JobService/ExplainJob", READ),
    ("palimpsest.v1.JobService/GetJob", READ),
    ("palimpsest.v1.JobService/GetSweepSummary", READ),
    ("palimpsest.v1.JobService/ListJobs", READ),
    ("palimpsest.v1.JobService/ListResults", READ),
    ("palimpsest.v1.JobService/ListTasks", READ),
    ("palimpsest.v1.JobService/RequeueQuarantined", SUBMIT),
    ("palimpsest.v1.JobService/WatchJob", READ),
    ("palimpsest.v1.ModelService/CreateModel", SUBMIT),
    ("palimpsest.v1.ModelService/GetModel", READ),
    ("palimpsest.v1.ModelService/ListModels", READ),
    ("palimpsest.v1.ObjectService/QueryObject", KNOWN),
    ("palimpsest.v1.ObjectService/ReadObject", KNOWN),
    ("palimpsest.v1.ObjectService/WriteObject", STORE),
    ("palimpsest.v1.StatisticsService/CreateStatistics", SUBMIT),
    ("palimpsest.v1.StatisticsService/DeleteStatistics", EDIT),
    ("palimpsest.v1.StatisticsService/ListStatistics", READ),
    ("palimpsest.v1.StatusService/GetStatus", KNOWN),
    ("palimpsest.v1.StoreService/CollectObjects", ADMINISTER),
    ("palimpsest.v1.VersionService/CherryPickEdit", EDIT),
    ("palimpsest.v1.VersionService/CompareVersions", READ),
    ("palimpsest.v1.VersionService/CreateEdit", EDIT),
    ("palimpsest.v1.VersionService/CreateRef", EDIT),
    ("palimpsest.v1.VersionService/GetEdit", READ),
    ("palimpsest.v1.VersionService/GetRef", READ),
    ("palimpsest.v1.VersionService/GetVersion", KNOWN),
    ("palimpsest.v1.VersionService/ListEdits", KNOWN),
    ("palimpsest.v1.VersionService/ListFactors", KNOWN),
    ("palimpsest.v1.VersionService/ListRefs", READ),
    ("palimpsest.v1.VersionService/ListVersions", READ),
    ("palimpsest.v1.VersionService/RevertEdit", EDIT),
    ("palimpsest.v1.VersionService/UpdateRef", EDIT),
    (CONNECT, WORK),
    ("palimpsest.v1.WorkerService/DrainWorker", ADMINISTER),
    ("palimpsest.v1.WorkerService/ListWorkers", READ),
    ("palimpsest.v1.WorkerService/ReadResults", KNOWN),
    ("palimpsest.v1.WorkerService/ReadmitWorker", ADMINISTER),
];

/// A method's name as the table has it, by the path of its requests; none if it is not in the
/// table.
pub fn method(path: &str) -> Option<&'static str> {
    row(path).map(|(name, _)| name)
}

/// Who may call a method, by the path of its requests, `/package.Service/Method`; none if it is
/// not in the table.
pub fn who(path: &str) -> Option<Who> {
    row(path).map(|(_, who)| who)
}

fn row(path: &str) -> Option<(&'static str, Who)> {
    static TABLE: LazyLock<HashMap<&str, &(&str, Who)>> =
        LazyLock::new(|| METHODS.iter().map(|row| (row.0, row)).collect());
    TABLE.get(path.strip_prefix('/')?).map(|row| **row)
}

/// The methods that a role may call, in order; without sign-in all but the workers' own.
pub fn methods_of(role: Option<Role>) -> Vec<String> {
    let may = |who: &Who| match (role, who) {
        (Some(role), who) => who.includes(role),
        (None, Who::Anybody) => true,
        (None, Who::Roles(roles)) => roles.iter().any(|&role| role != Role::Worker),
    };
    let rows = METHODS.iter().filter(|(_, who)| may(who));
    rows.map(|(name, _)| (*name).to_owned()).collect()
}

impl Who {
    /// Whether this role is among them.
    pub fn includes(self, role: Role) -> bool {
        match self {
            Self::Anybody => true,
            Self::Roles(roles) => roles.contains(&role),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use prost_reflect::DescriptorPool;

    use super::*;

    /// All methods that the server has, of its own and of other packages.
    fn served() -> BTreeSet<String> {
        let mut methods = BTreeSet::new();
        for descriptors in [
            crate::proto::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            let pool = DescriptorPool::decode(descriptors).unwrap();
            for service in pool.services() {
                for method in service.methods() {
                    methods.insert(format!("{}/{}", service.full_name(), method.name()));
                }
            }
        }
        methods
    }

    #[test]
    fn every_method_has_one_row_and_every_row_a_method() {
        let rows: BTreeSet<String> = METHODS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(rows.len(), METHODS.len(), "a method has two rows");
        let served = served();
        let missing: Vec<_> = served.difference(&rows).collect();
        assert!(missing.is_empty(), "no role may call {missing:?}: add rows");
        let stale: Vec<_> = rows.difference(&served).collect();
        assert!(stale.is_empty(), "there is no {stale:?}");
    }

    #[test]
    fn a_caller_is_told_the_methods_that_the_table_gives_them() {
        for role in [Viewer, Submitter, Editor, Admin, Worker].map(Some) {
            let told: BTreeSet<String> = methods_of(role).into_iter().collect();
            for (name, who) in METHODS {
                assert_eq!(told.contains(*name), who.includes(role.unwrap()), "{name}");
            }
        }
        let open = methods_of(None);
        assert!(!open.contains(&CONNECT.to_owned()));
        assert!(open.iter().any(|it| it.ends_with("/CreateEdit")));
    }

    /// What a method does is in its name, by the conventions of the contract: who may call it
    /// follows from that, read here once more and independently of the table.
    #[test]
    fn viewers_read_only_and_workers_do_not_administer() {
        for (name, who) in METHODS {
            let (service, method) = name.split_once('/').unwrap();
            if !service.starts_with("palimpsest.") {
                continue;
            }
            let reads = [
                "Get", "List", "Watch", "Compare", "Explain", "Prove", "Verify", "Query", "Read",
            ]
            .iter()
            .any(|verb| {
                // "ReadObject", and not "ReadmitWorker".
                let rest = method.strip_prefix(verb);
                rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
            });
            assert_eq!(who.includes(Viewer), reads, "{name}");
            assert_eq!(
                who.includes(Admin),
                *name != "palimpsest.v1.WorkerService/Connect"
            );
            assert!(!who.includes(Submitter) || who.includes(Editor), "{name}");
            assert!(!who.includes(Editor) || who.includes(Admin), "{name}");
            // A worker remakes the version that its lease names, reads what its units build on, and
            // the keys of earlier edits, which an edit of many facts must leave as they are.
            let remakes =
                ["GetVersion", "ListEdits", "ListFactors", "ReadResults"].contains(&method);
            // And everybody may ask who they are taken for.
            let asks = method == "GetStatus";
            let works =
                service.ends_with(".ObjectService") || method == "Connect" || remakes || asks;
            assert_eq!(who.includes(Worker), works, "{name}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_belongs_to_nobody() {
        assert_eq!(who("/palimpsest.v1.JobService/GetJob"), Some(READ));
        for path in [
            "",
            "/",
            "palimpsest.v1.JobService/GetJob",
            "/palimpsest.v1.JobService/Burn",
        ] {
            assert_eq!(who(path), None, "{path}");
        }
    }
}
