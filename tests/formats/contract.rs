//! The public contract keeps its rules and its promises.
//!
//! The rules are buf's lint categories STANDARD and COMMENTS (<https://buf.build/docs/lint/rules>),
//! over the descriptors that the server serves by reflection. What was promised is
//! `tests/golden/contract.txt`: nothing in it may change or go, because a program built from an
//! older contract has to go on working.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use palimpsest::proto::DESCRIPTORS;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use prost_reflect::{
    DescriptorPool, EnumDescriptor, EnumValueDescriptor, FieldDescriptor, FileDescriptor,
    MessageDescriptor, MethodDescriptor,
};

/// All files of the contract, without those of other packages that they import.
fn files() -> Vec<FileDescriptor> {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let ours = pool
        .files()
        .filter(|file| file.package_name().starts_with("palimpsest"));
    let mut files: Vec<_> = ours.collect();
    files.sort_by(|a, b| a.name().cmp(b.name()));
    files
}

fn nested<T>(
    of_file: Vec<MessageDescriptor>,
    give: &impl Fn(&MessageDescriptor) -> Vec<T>,
) -> Vec<T> {
    of_file
        .iter()
        .flat_map(|message| {
            let inner: Vec<_> = message
                .child_messages()
                .filter(|inner| !inner.is_map_entry())
                .collect();
            give(message)
                .into_iter()
                .chain(nested(inner, give))
                .collect::<Vec<T>>()
        })
        .collect()
}

fn messages(file: &FileDescriptor) -> Vec<MessageDescriptor> {
    nested(file.messages().collect(), &|message| vec![message.clone()])
}

fn enums(file: &FileDescriptor) -> Vec<EnumDescriptor> {
    let inside = nested(file.messages().collect(), &|message| {
        message.child_enums().collect()
    });
    file.enums().chain(inside).collect()
}

fn fields(file: &FileDescriptor) -> Vec<FieldDescriptor> {
    messages(file)
        .iter()
        .flat_map(|message| message.fields().collect::<Vec<_>>())
        .collect()
}

fn values(file: &FileDescriptor) -> Vec<EnumValueDescriptor> {
    enums(file)
        .iter()
        .flat_map(|e| e.values().collect::<Vec<_>>())
        .collect()
}

fn methods(file: &FileDescriptor) -> Vec<MethodDescriptor> {
    file.services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect()
}

/// `ListTasksRequest`, with letters and digits alone and no two capitals but in one-letter words.
fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
        && !name
            .as_bytes()
            .windows(2)
            .any(|pair| pair.iter().all(u8::is_ascii_uppercase))
}

/// `next_page_token`.
fn is_lower_snake(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.contains("__")
        && !name.ends_with('_')
}

/// `JobState` as the prefix of its values, `JOB_STATE_`.
fn prefix(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out + "_"
}

/// Every rule that is broken: "file: thing: rule".
#[derive(Default)]
struct Broken(Vec<String>);

impl Broken {
    fn unless(&mut self, holds: bool, thing: &str, rule: &str) {
        if !holds {
            self.0.push(format!("{thing}: {rule}"));
        }
    }

    fn none(self) {
        assert!(
            self.0.is_empty(),
            "the contract breaks rules:\n{}",
            self.0.join("\n")
        );
    }
}

#[test]
fn files_packages_and_services_are_named_by_the_standard() {
    let mut broken = Broken::default();
    check_files(&files(), &mut broken);
    broken.none();
}

fn check_files(files: &[FileDescriptor], broken: &mut Broken) {
    for file in files {
        let (name, package) = (file.name(), file.package_name());
        let folder = format!("{}/", package.replace('.', "/"));
        let inside = name.strip_prefix(&folder);
        broken.unless(
            inside.is_some_and(|inside| !inside.contains('/')),
            name,
            "PACKAGE_DIRECTORY_MATCH: the folder says the package",
        );
        let version = package
            .rsplit('.')
            .next()
            .and_then(|last| last.strip_prefix('v'));
        broken.unless(
            version.is_some_and(|version| version.parse::<u32>().is_ok_and(|n| n > 0)),
            name,
            "PACKAGE_VERSION_SUFFIX: the package ends in a version, v1",
        );
        broken.unless(
            package.split('.').all(is_lower_snake),
            name,
            "PACKAGE_LOWER_SNAKE_CASE",
        );
        let stem = name
            .rsplit('/')
            .next()
            .and_then(|last| last.strip_suffix(".proto"));
        broken.unless(
            stem.is_some_and(is_lower_snake),
            name,
            "FILE_LOWER_SNAKE_CASE",
        );
        broken.unless(
            file.syntax() == prost_reflect::Syntax::Proto3,
            name,
            "SYNTAX_SPECIFIED: proto3",
        );
        let descriptor = file.file_descriptor_proto();
        broken.unless(
            descriptor.public_dependency.is_empty() && descriptor.weak_dependency.is_empty(),
            name,
            "IMPORT_NO_PUBLIC, IMPORT_NO_WEAK",
        );
        let mut imports = descriptor.dependency.clone();
        imports.sort();
        imports.dedup();
        broken.unless(
            imports.len() == descriptor.dependency.len(),
            name,
            "IMPORT_USED: an import stands twice",
        );
        for import in &descriptor.dependency {
            broken.unless(
                is_used(file, import),
                name,
                &format!("IMPORT_USED: nothing of {import} is used"),
            );
        }
        for service in file.services() {
            broken.unless(
                is_pascal(service.name()) && service.name().ends_with("Service"),
                service.full_name(),
                "SERVICE_PASCAL_CASE, SERVICE_SUFFIX: named ...Service",
            );
        }
    }
}

/// Whether a field or method of `file` has a type of the file `import`.
fn is_used(file: &FileDescriptor, import: &str) -> bool {
    let of_fields = fields(file)
        .into_iter()
        .filter_map(|field| match field.kind() {
            prost_reflect::Kind::Message(message) => Some(message.parent_file()),
            prost_reflect::Kind::Enum(e) => Some(e.parent_file()),
            _ => None,
        });
    let of_methods = methods(file)
        .into_iter()
        .flat_map(|method| [method.input().parent_file(), method.output().parent_file()]);
    of_fields
        .chain(of_methods)
        .any(|used| used.name() == import)
}

#[test]
fn every_rpc_has_a_request_and_a_response_of_its_own() {
    let mut broken = Broken::default();
    check_rpcs(&files(), &mut broken);
    broken.none();
}

fn check_rpcs(files: &[FileDescriptor], broken: &mut Broken) {
    let mut users: HashMap<String, Vec<String>> = HashMap::new();
    for method in files.iter().flat_map(methods) {
        let (rpc, service) = (method.name(), method.parent_service().name().to_owned());
        broken.unless(is_pascal(rpc), method.full_name(), "RPC_PASCAL_CASE");
        let (request, response) = (method.input(), method.output());
        for (message, end, rule) in [
            (&request, "Request", "RPC_REQUEST_STANDARD_NAME"),
            (&response, "Response", "RPC_RESPONSE_STANDARD_NAME"),
        ] {
            let allowed = [format!("{rpc}{end}"), format!("{service}{rpc}{end}")];
            broken.unless(
                allowed.iter().any(|name| name == message.name()),
                method.full_name(),
                &format!("{rule}: {} is not {}", message.name(), allowed[0]),
            );
            let user = format!("{} {end}", method.full_name());
            users
                .entry(message.full_name().to_owned())
                .or_default()
                .push(user);
        }
    }
    for (message, users) in users {
        broken.unless(
            users.len() == 1,
            &message,
            &format!(
                "RPC_REQUEST_RESPONSE_UNIQUE: used by {}",
                users.join(" and ")
            ),
        );
    }
}

#[test]
fn messages_fields_and_enums_are_named_by_the_standard() {
    let mut broken = Broken::default();
    check_names(&files(), &mut broken);
    broken.none();
}

fn check_names(files: &[FileDescriptor], broken: &mut Broken) {
    for file in files {
        for message in messages(file) {
            broken.unless(
                is_pascal(message.name()),
                message.full_name(),
                "MESSAGE_PASCAL_CASE",
            );
            for oneof in message.oneofs() {
                // The compiler makes a oneof of its own for a field marked `optional`.
                let made = oneof.name().starts_with('_');
                broken.unless(
                    made || is_lower_snake(oneof.name()),
                    oneof.full_name(),
                    "ONEOF_LOWER_SNAKE_CASE",
                );
            }
        }
        for field in fields(file) {
            broken.unless(
                is_lower_snake(field.name()),
                field.full_name(),
                "FIELD_LOWER_SNAKE_CASE",
            );
            broken.unless(
                field.name() != "descriptor",
                field.full_name(),
                "FIELD_NO_DESCRIPTOR",
            );
            broken.unless(
                field.cardinality() != prost_reflect::Cardinality::Required,
                field.full_name(),
                "FIELD_NOT_REQUIRED",
            );
        }
        for e in enums(file) {
            broken.unless(is_pascal(e.name()), e.full_name(), "ENUM_PASCAL_CASE");
            let prefix = prefix(e.name());
            let mut numbers = BTreeMap::new();
            for value in e.values() {
                let rest = value.name().strip_prefix(&prefix).unwrap_or_default();
                broken.unless(
                    !rest.is_empty(),
                    value.full_name(),
                    &format!("ENUM_VALUE_PREFIX: begins with {prefix}"),
                );
                broken.unless(
                    is_lower_snake(&rest.to_lowercase()) && rest == rest.to_uppercase(),
                    value.full_name(),
                    "ENUM_VALUE_UPPER_SNAKE_CASE",
                );
                let twin = numbers.insert(value.number(), value.name().to_owned());
                broken.unless(twin.is_none(), value.full_name(), "ENUM_NO_ALLOW_ALIAS");
            }
            broken.unless(
                e.values().next().is_some_and(|first| first.number() == 0),
                e.full_name(),
                "ENUM_FIRST_VALUE_ZERO",
            );
            broken.unless(
                numbers.get(&0) == Some(&format!("{prefix}UNSPECIFIED")),
                e.full_name(),
                &format!("ENUM_ZERO_VALUE_SUFFIX: 0 is {prefix}UNSPECIFIED"),
            );
        }
    }
}

#[test]
fn everything_has_a_comment() {
    let mut broken = Broken::default();
    check_comments(&files(), &mut broken);
    broken.none();
}

fn check_comments(files: &[FileDescriptor], broken: &mut Broken) {
    for file in files {
        let comments = comments(file.file_descriptor_proto());
        let mut check = |path: &[i32], name: &str, rule: &str| {
            let said = comments.get(path).is_some_and(|comment| {
                comment
                    .lines()
                    .any(|line| line.chars().any(char::is_alphanumeric))
            });
            broken.unless(said, name, rule);
        };
        for service in file.services() {
            check(service.path(), service.full_name(), "COMMENT_SERVICE");
        }
        for method in methods(file) {
            check(method.path(), method.full_name(), "COMMENT_RPC");
        }
        for message in messages(file) {
            check(message.path(), message.full_name(), "COMMENT_MESSAGE");
            for oneof in message
                .oneofs()
                .filter(|oneof| !oneof.name().starts_with('_'))
            {
                check(oneof.path(), oneof.full_name(), "COMMENT_ONEOF");
            }
        }
        for field in fields(file) {
            check(field.path(), field.full_name(), "COMMENT_FIELD");
        }
        for e in enums(file) {
            check(e.path(), e.full_name(), "COMMENT_ENUM");
        }
        for value in values(file) {
            check(value.path(), value.full_name(), "COMMENT_ENUM_VALUE");
        }
    }
}

/// The comments before the things of a file, by their paths in its descriptor.
fn comments(file: &FileDescriptorProto) -> HashMap<&[i32], &str> {
    let locations = &file.source_code_info.as_ref().unwrap().location;
    locations
        .iter()
        .filter(|location| location.leading_comments.is_some())
        .map(|location| (location.path.as_slice(), location.leading_comments()))
        .collect()
}

#[test]
fn every_rpc_says_its_errors() {
    let mut broken = Broken::default();
    check_errors(&files(), &mut broken);
    broken.none();
}

fn check_errors(files: &[FileDescriptor], broken: &mut Broken) {
    for file in files {
        let comments = comments(file.file_descriptor_proto());
        for method in methods(file) {
            let comment = comments.get(method.path()).copied().unwrap_or_default();
            broken.unless(
                comment.contains("Errors:"),
                method.full_name(),
                "no list of errors",
            );
        }
    }
}

#[test]
fn what_was_promised_is_kept() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/contract.txt");
    let now = contract();
    if std::env::var_os("PALIMPSEST_RENEW_CONTRACT").is_some() {
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::write(&golden, &now).unwrap();
        return;
    }
    let promised = std::fs::read_to_string(&golden).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (promised, now) = (lines(&promised), lines(&now));
    let missing = |of: &[String], from: &[String], sign| -> Vec<String> {
        let gone = of.iter().filter(|line| !from.contains(line));
        gone.map(|line| format!("{sign} {line}")).collect()
    };
    let (broken, new) = (missing(&promised, &now, '-'), missing(&now, &promised, '+'));
    assert!(
        broken.is_empty() && new.is_empty(),
        "the contract is not that of tests/golden/contract.txt:\n{}\n\n{}\n\
         Then renew the file on purpose, and commit it with the change:\n    \
         PALIMPSEST_RENEW_CONTRACT=1 cargo test --test formats contract",
        [broken.clone(), new].concat().join("\n"),
        if broken.is_empty() {
            "Only additions: older programs go on working."
        } else {
            "Lines with - break programs built from the older contract. Once released, add new \
             fields, values and rpcs instead, and reserve the numbers of what goes."
        }
    );
}

/// The contract as text: what decides the bytes on the wire and the names in generated code.
fn contract() -> String {
    let mut out = String::new();
    for file in files() {
        for service in file.services() {
            for method in service.methods() {
                let stream = |streams| if streams { "stream " } else { "" };
                writeln!(
                    out,
                    "rpc {}({}{}) returns ({}{})",
                    method.full_name(),
                    stream(method.is_client_streaming()),
                    method.input().full_name(),
                    stream(method.is_server_streaming()),
                    method.output().full_name()
                )
                .unwrap();
            }
        }
        for message in messages(&file) {
            writeln!(out, "message {}", message.full_name()).unwrap();
            let mut fields: Vec<_> = message.fields().collect();
            fields.sort_by_key(FieldDescriptor::number);
            for field in fields {
                writeln!(
                    out,
                    "field {} = {}: {}",
                    field.full_name(),
                    field.number(),
                    kind(&field)
                )
                .unwrap();
            }
        }
        for e in enums(&file) {
            for value in e.values() {
                writeln!(
                    out,
                    "value {} {} = {}",
                    e.full_name(),
                    value.name(),
                    value.number()
                )
                .unwrap();
            }
        }
    }
    out
}

fn kind(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        prost_reflect::Kind::Message(message) => message.full_name().to_owned(),
        prost_reflect::Kind::Enum(e) => e.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    let oneof = field.containing_oneof();
    match oneof.as_ref().map(|oneof| oneof.name()) {
        Some(made) if made.starts_with('_') => format!("optional {kind}"),
        Some(oneof) => format!("{kind} in oneof {oneof}"),
        None if field.is_list() => format!("repeated {kind}"),
        None => kind,
    }
}

#[test]
fn every_rule_catches_what_it_is_for() {
    let field = |name: &str| FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(1),
        label: Some(Label::Optional.into()),
        r#type: Some(Type::String.into()),
        ..Default::default()
    };
    let method = |name: &str| MethodDescriptorProto {
        name: Some(name.into()),
        input_type: Some(".palimpsest.HTTPThing".into()),
        output_type: Some(".palimpsest.HTTPThing".into()),
        ..Default::default()
    };
    let value = |name: &str, number| EnumValueDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        ..Default::default()
    };
    let bad = FileDescriptorProto {
        name: Some("elsewhere/Bad.proto".into()),
        package: Some("palimpsest".into()),
        syntax: Some("proto3".into()),
        dependency: vec!["unused.proto".into()],
        public_dependency: vec![0],
        message_type: vec![DescriptorProto {
            name: Some("HTTPThing".into()),
            field: vec![field("theName")],
            ..Default::default()
        }],
        enum_type: vec![EnumDescriptorProto {
            name: Some("Colour".into()),
            value: vec![value("COLOUR_RED", 0), value("colour_blue", 1)],
            ..Default::default()
        }],
        service: vec![ServiceDescriptorProto {
            name: Some("Things".into()),
            method: vec![method("getThing"), method("DropThing")],
            ..Default::default()
        }],
        source_code_info: Some(Default::default()),
        ..Default::default()
    };
    let unused = FileDescriptorProto {
        name: Some("unused.proto".into()),
        syntax: Some("proto3".into()),
        ..Default::default()
    };
    let set = FileDescriptorSet {
        file: vec![unused, bad],
    };
    let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
    let bad = [pool.get_file_by_name("elsewhere/Bad.proto").unwrap()];
    let mut broken = Broken::default();
    check_files(&bad, &mut broken);
    check_rpcs(&bad, &mut broken);
    check_names(&bad, &mut broken);
    check_comments(&bad, &mut broken);
    check_errors(&bad, &mut broken);
    for rule in [
        "PACKAGE_DIRECTORY_MATCH",
        "PACKAGE_VERSION_SUFFIX",
        "FILE_LOWER_SNAKE_CASE",
        "IMPORT_NO_PUBLIC",
        "IMPORT_USED",
        "SERVICE_SUFFIX",
        "RPC_PASCAL_CASE",
        "RPC_REQUEST_STANDARD_NAME",
        "RPC_RESPONSE_STANDARD_NAME",
        "RPC_REQUEST_RESPONSE_UNIQUE",
        "MESSAGE_PASCAL_CASE",
        "FIELD_LOWER_SNAKE_CASE",
        "ENUM_VALUE_PREFIX",
        "ENUM_ZERO_VALUE_SUFFIX",
        "COMMENT_SERVICE",
        "COMMENT_RPC",
        "COMMENT_MESSAGE",
        "COMMENT_FIELD",
        "COMMENT_ENUM",
        "COMMENT_ENUM_VALUE",
        "no list of errors",
    ] {
        let caught = broken.0.iter().any(|broken| broken.contains(rule));
        assert!(caught, "{rule} is not among\n{}", broken.0.join("\n"));
    }
    assert!(is_pascal("ListTasksRequest") && !is_pascal("job"));
    assert!(is_lower_snake("next_page_token") && !is_lower_snake("a__b") && !is_lower_snake("a_"));
}
