use std::borrow::Cow;

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::limits::{BODY, POLICY_BODY};
use crate::{Problem, ProblemKind, Role};

/// One thing that can be asked for.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) method: Method,
    /// Segments in braces stand for any text.
    pub(crate) path: &'static str,
    pub(crate) operation: Operation,
    /// `None`: everybody may.
    pub(crate) role: Option<Role>,
    /// What may be said after the `?`, as true or false.
    pub(crate) flags: &'static [&'static str],
    pub(crate) takes: Takes,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Operation {
    Status,
    Policy,
    Apply,
    Reload,
    Providers,
    Flows,
    Events,
    Down,
    Session,
    Hold,
    Release,
    OpenApi,
}

/// The body that a request has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Takes {
    Nothing,
    Json,
    Policy,
}

/// All there are. `docs/openapi.json` is made from this.
pub(crate) static ROUTES: [Route; 12] = [
    Route::reading("/v1/status", Operation::Status, &[]),
    Route::reading("/v1/policy", Operation::Policy, &[]),
    Route {
        method: Method::PUT,
        path: "/v1/policy",
        operation: Operation::Apply,
        role: Some(Role::Administrator),
        flags: &["dry-run"],
        takes: Takes::Policy,
    },
    Route::posting("/v1/reload", Operation::Reload, Role::Administrator, Takes::Nothing),
    Route::reading("/v1/providers", Operation::Providers, &[]),
    Route::posting("/v1/providers/{name}/hold", Operation::Hold, Role::Registrar, Takes::Json),
    Route::posting("/v1/providers/{name}/release", Operation::Release, Role::Registrar, Takes::Nothing),
    Route::reading("/v1/flows", Operation::Flows, &["follow"]),
    Route::reading("/v1/events", Operation::Events, &[]),
    Route::posting("/v1/session", Operation::Session, Role::Registrar, Takes::Json),
    Route::posting("/v1/down", Operation::Down, Role::Administrator, Takes::Nothing),
    Route {
        method: Method::GET,
        path: "/v1/openapi.json",
        operation: Operation::OpenApi,
        role: None,
        flags: &[],
        takes: Takes::Nothing,
    },
];

impl Route {
    const fn reading(path: &'static str, operation: Operation, flags: &'static [&'static str]) -> Self {
        Self { method: Method::GET, path, operation, role: Some(Role::Reader), flags, takes: Takes::Nothing }
    }

    const fn posting(path: &'static str, operation: Operation, role: Role, takes: Takes) -> Self {
        Self { method: Method::POST, path, operation, role: Some(role), flags: &[], takes }
    }

    /// The text that stands where the path has braces.
    fn matches<'a>(&self, path: &'a str) -> Option<Option<&'a str>> {
        let Some((before, after)) = self.path.split_once("{name}") else {
            return (self.path == path).then_some(None);
        };
        let name = path.strip_prefix(before)?.strip_suffix(after)?;
        (!name.is_empty() && !name.contains('/')).then_some(Some(name))
    }
}

/// What is asked for, and the name in the path.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Result<(&'static Route, Cow<'a, str>), NotFound> {
    let mut allowed = Vec::new();
    for route in &ROUTES {
        let Some(name) = route.matches(path) else { continue };
        if route.method != method {
            allowed.push(route.method.as_str());
            continue;
        }
        let name = percent_decode_str(name.unwrap_or_default()).decode_utf8();
        let name = name.map_err(|_| NotFound::malformed("the name in the path is not UTF-8"))?;
        return Ok((route, name));
    }
    Err(NotFound::new(method, path, allowed))
}

#[derive(Debug)]
pub(super) struct NotFound {
    pub(super) problem: Problem,
    /// The methods that the path has.
    pub(super) allowed: Option<String>,
}

impl NotFound {
    fn new(method: &Method, path: &str, allowed: Vec<&'static str>) -> Self {
        if allowed.is_empty() {
            let path: String = path.chars().take(100).collect();
            let detail = format!("there is no path {path:?}: GET /v1/openapi.json lists all");
            return Self { problem: Problem::new(ProblemKind::NotFound, detail), allowed: None };
        }
        let allowed = allowed.join(", ");
        let detail = format!("{path} has no method {method}: use {allowed}");
        Self { problem: Problem::new(ProblemKind::Method, detail), allowed: Some(allowed) }
    }

    fn malformed(detail: &str) -> Self {
        Self { problem: Problem::new(ProblemKind::Malformed, detail), allowed: None }
    }
}

impl Takes {
    pub(super) fn most_bytes(self) -> usize {
        match self {
            Self::Policy => POLICY_BODY,
            Self::Json | Self::Nothing => BODY,
        }
    }
}
