//! `docs/openapi.json`, made from the routes and the types. Only a test makes it, so that the daemon carries no
//! generator; the daemon has the file.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{
    Applied, EventLine, FlowLine, Held, HoldRequest, JSON, LINES, PROBLEM_JSON, Problem, Providers, Released, Removed,
    SessionLine, SessionRequest, Status, TEXT, TOML,
    server::{
        limits::{BODY, POLICY_BODY},
        routes::{Operation, ROUTES, Route, Takes},
    },
};

/// `CARNET_BLESS=1 cargo nextest run -p carnet-control openapi` writes the file.
#[test]
fn the_openapi_document_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let current = document();
    if std::env::var_os("CARNET_BLESS").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&current).unwrap() + "\n").unwrap();
    }
    let shipped: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(shipped == current, "docs/openapi.json is not what the types say: CARNET_BLESS=1 writes it");
}

fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let mut paths = Map::new();
    for route in &ROUTES {
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[route.method.as_str().to_lowercase()] = operation(route, &mut schemas);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Carnet's control API",
            "version": "1",
            "description": ABOUT,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://carnet", "description": "the host's name means nothing on a Unix socket" }],
        "paths": paths,
        "components": { "schemas": schemas.take_definitions(true) },
    })
}

fn operation(route: &Route, schemas: &mut SchemaGenerator) -> Value {
    let Said { id, summary, description, answers } = said(route.operation);
    let mut responses = Map::new();
    responses.insert("200".into(), answers(schemas));
    for (status, description) in refusals(route) {
        let schema = schemas.subschema_for::<Problem>();
        let content = json!({ PROBLEM_JSON: { "schema": schema } });
        responses.insert(status.into(), json!({ "description": description, "content": content }));
    }
    let role = match route.role {
        Some(role) => format!("Role: {role}."),
        None => "Everybody may.".into(),
    };
    let description = format!("{description} {role}");
    let mut operation = json!({
        "operationId": id,
        "summary": summary,
        "description": description.trim(),
        "x-role": route.role,
        "responses": responses,
    });
    let parameters = parameters(route);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = body(route, schemas) {
        operation["requestBody"] = body;
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let mut parameters = Vec::new();
    if route.path.contains("{name}") {
        parameters.push(json!({
            "name": "name", "in": "path", "required": true,
            "description": "the provider's name, percent-encoded", "schema": { "type": "string" },
        }));
    }
    if route.operation == Operation::Apply {
        parameters.push(json!({
            "name": "If-Match", "in": "header",
            "description": "only where the policy in force has this generation", "schema": { "type": "string" },
        }));
    }
    for flag in route.flags {
        parameters.push(json!({
            "name": flag, "in": "query",
            "description": match *flag {
                "dry-run" => "only say what the policy would be",
                _ => "go on with those that end from now on",
            },
            "schema": { "type": "boolean", "default": false },
        }));
    }
    parameters
}

fn body(route: &Route, schemas: &mut SchemaGenerator) -> Option<Value> {
    let (description, content) = match (route.takes, route.operation) {
        (Takes::Nothing, _) => return None,
        (Takes::Policy, _) => {
            let text = json!({ "schema": { "type": "string" } });
            (format!("a policy file, at most {} MiB", POLICY_BODY >> 20), json!({ TOML: text, TEXT: text }))
        }
        (Takes::Json, Operation::Hold) => {
            let schema = schemas.subschema_for::<HoldRequest>();
            (format!("at most {} MiB; listeners by SCM_RIGHTS", BODY >> 20), json!({ JSON: { "schema": schema } }))
        }
        (Takes::Json, _) => {
            let schema = schemas.subschema_for::<SessionRequest>();
            (format!("at most {} MiB; listeners by SCM_RIGHTS", BODY >> 20), json!({ JSON: { "schema": schema } }))
        }
    };
    Some(json!({ "description": description, "required": true, "content": content }))
}

/// All that a route may answer beside what was asked for.
fn refusals(route: &Route) -> Vec<(&'static str, &'static str)> {
    use Operation::{Apply, Down, Events, Hold, OpenApi, Release, Reload, Session};
    let named = matches!(route.operation, Hold | Release);
    let changes = matches!(route.operation, Apply | Down | Hold | Release | Reload | Session);
    let backend = !matches!(route.operation, Events | OpenApi);
    let all = [
        (true, "400", "the request is malformed"),
        (route.role.is_some(), "403", "the caller's role is too low"),
        (named, "404", "there is no such provider, or nothing is held for it"),
        (true, "408", "the body did not arrive in time"),
        (changes, "409", "this does not go together with what is in force"),
        (route.operation == Apply, "412", "another policy is in force than `If-Match` says"),
        (true, "413", "the body is too large"),
        (route.takes != Takes::Nothing, "415", "the body is of another type"),
        (matches!(route.operation, Apply | Reload | Session), "422", "there are mistakes, which are listed"),
        (true, "431", "the head of the request is too large"),
        (backend, "500", "the daemon or the kernel failed"),
        (true, "503", "there are too many connections, or the daemon is ending"),
    ];
    all.into_iter().filter(|(there, ..)| *there).map(|(_, status, description)| (status, description)).collect()
}

struct Said {
    id: &'static str,
    summary: &'static str,
    description: &'static str,
    answers: fn(&mut SchemaGenerator) -> Value,
}

fn said(operation: Operation) -> Said {
    let (id, summary, description, answers): (_, _, _, fn(&mut SchemaGenerator) -> Value) = match operation {
        Operation::Status => ("status", "How the daemon does", "", object::<Status>),
        Operation::Policy => ("policy", "The text of the policy in force", "", text),
        Operation::Apply => {
            ("apply", "Put a policy in force, as one", "All mistakes are told at once.", object::<Applied>)
        }
        Operation::Reload => {
            ("reload", "Have the daemon read its own policy file again, and put it in force", "", object::<Applied>)
        }
        Operation::Providers => ("providers", "All providers, in the order of their ranks", "", object::<Providers>),
        Operation::Hold => ("hold", "Have a provider's listeners held while it restarts", "", object::<Held>),
        Operation::Release => (
            "release",
            "Take back the listeners that are held",
            "They come by SCM_RIGHTS with the answer's first bytes.",
            object::<Released>,
        ),
        Operation::Flows => ("flows", "Flows that are open, one a line", "", lines::<FlowLine>),
        Operation::Events => ("events", "What happens from now on, one a line", "", lines::<EventLine>),
        Operation::Session => (
            "session",
            "Register providers and filters for as long as this connection lasts",
            "Filters that are no provider's are the host's, and need the role administrator.",
            lines::<SessionLine>,
        ),
        Operation::Down => ("down", "Remove everything from the kernel, and end", "", object::<Removed>),
        Operation::OpenApi => ("openapi", "This document", "", document_itself),
    };
    Said { id, summary, description, answers }
}

fn object<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    let schema = schemas.subschema_for::<T>();
    json!({ "description": "done", "content": { JSON: { "schema": schema } } })
}

fn lines<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    let schema = schemas.subschema_for::<T>();
    json!({ "description": "each line is one of these", "content": { LINES: { "schema": schema } } })
}

fn text(_: &mut SchemaGenerator) -> Value {
    json!({ "description": "done", "content": { TOML: { "schema": { "type": "string" } } } })
}

fn document_itself(_: &mut SchemaGenerator) -> Value {
    json!({ "description": "done", "content": { JSON: { "schema": { "type": "object" } } } })
}

const ABOUT: &str = "HTTP/1.1 on the Unix socket /run/carnet/control.sock. Who may do what is decided by the caller's \
                     uid and groups. docs/control-api.md describes sessions and descriptors.";
