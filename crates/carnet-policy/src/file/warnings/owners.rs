//! Owners that others are, too.

use std::ops::Range;

use crate::file::entry::OwnerEntry;
use crate::file::finding::Id;
use crate::file::source::shown;
use crate::file::warnings::Warnings;
use crate::file::{Host, Resolved};
use crate::{FilterRef, Owner};

pub fn look(warnings: &mut Warnings, resolved: &Resolved, host: &dyn Host) {
    let file = warnings.file;
    let mut cgroups: Vec<(usize, &str, Range<usize>)> = Vec::new();
    for (at, (entry, provider)) in file.providers.iter().zip(&resolved.policy.providers).enumerate() {
        let entries = entry.owners.as_ref().map_or(&[][..], |owners| owners.get_ref());
        for (entry, owner) in entries.iter().zip(&provider.owners) {
            match (entry.get_ref(), owner) {
                (OwnerEntry::Cgroup(path), _) => {
                    cgroup(warnings, path, entry.span());
                    cgroups.push((at, path, entry.span()));
                }
                (OwnerEntry::User(_), Owner::Uid(uid)) => user(warnings, resolved, host, *uid, entry.span()),
                (OwnerEntry::User(_), Owner::Cgroup { .. }) => {}
            }
        }
    }
    overlaps(warnings, &cgroups);
}

fn cgroup(warnings: &mut Warnings, path: &str, span: Range<usize>) {
    let last = path.rsplit('/').next().unwrap_or_default();
    let is_session = last.starts_with("session-") && last.ends_with(".scope");
    let why = if last.ends_with(".slice") {
        "a slice holds other services and programs"
    } else if last == "init.scope" || is_session || last.starts_with("user@") {
        "it holds other programs"
    } else {
        return;
    };
    let what = format!(
        "{:?} is too wide for an owner: {why}, and none of their connections would be redirected to it",
        shown(path)
    );
    warnings.add(Id::WideOwner, span, what, "name the service's own cgroup, such as \"/system.slice/dlp.service\"");
}

fn user(warnings: &mut Warnings, resolved: &Resolved, host: &dyn Host, uid: u32, span: Range<usize>) {
    let account = host.account(uid);
    let name = account.as_ref().map_or_else(|| uid.to_string(), |account| account.name.clone());
    let shell = account.as_ref().map_or("", |account| &account.shell);
    let filter = names_user(resolved, uid);
    let why = if uid == 0 {
        "much else runs as root".to_owned()
    } else if uid == OVERFLOW || SHARED.contains(&&name[..]) {
        "many services run as this user".to_owned()
    } else if is_login(shell) {
        format!("whoever logs in as this user is the provider (its shell is {:?})", shown(shell))
    } else if let Some(filter) = filter {
        format!("the filter {:?} is about the programs of the same user", warnings.file.shown_filter(filter))
    } else {
        return;
    };
    let what = format!("the user {:?} is too wide for an owner: {why}", shown(&name));
    warnings.add(Id::WideOwner, span, what, "name a cgroup, or a user that nothing else runs as");
}

/// A filter that asks for this one user.
fn names_user(resolved: &Resolved, uid: u32) -> Option<FilterRef> {
    let host = resolved.policy.filters.iter().enumerate().map(|(at, filter)| (FilterRef::Host(at), &filter.matches));
    let providers = resolved.policy.providers.iter().enumerate().flat_map(|(provider, entry)| {
        let filters = entry.filters.iter().enumerate();
        filters.map(move |(filter, entry)| (FilterRef::Provider { provider, filter }, &entry.matches))
    });
    let mut named = host
        .chain(providers)
        .filter(|(_, matches)| matches.uids.only.iter().flatten().any(|list| list.contains(&(uid..=uid))));
    named.next().map(|(at, _)| at)
}

fn is_login(shell: &str) -> bool {
    let program = shell.rsplit('/').next().unwrap_or_default();
    !program.is_empty() && !["nologin", "false", "true", "sync", "halt", "shutdown"].contains(&program)
}

/// One provider's cgroup within another's.
fn overlaps(warnings: &mut Warnings, cgroups: &[(usize, &str, Range<usize>)]) {
    for (provider, path, span) in cgroups {
        let outer = cgroups.iter().find(|(other, outer, _)| {
            let is_below = path.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
            other != provider && is_below
        });
        if let Some((_, outer, outer_span)) = outer {
            let what = format!(
                "{:?} is within {:?}, which is another provider's: what is in both counts as that of the higher rank",
                shown(path),
                shown(outer)
            );
            let action = "give each provider a cgroup that is not in the other's";
            warnings.add_with(
                Id::OverlappingOwners,
                span.clone(),
                what,
                action,
                (outer_span.clone(), "the other is here"),
            );
        }
    }
}

/// Users that services have in common.
const SHARED: &[&str] = &["bin", "daemon", "games", "mail", "nfsnobody", "nobody", "sys", "www-data"];

/// The uid of whoever has none here.
const OVERFLOW: u32 = 65534;
