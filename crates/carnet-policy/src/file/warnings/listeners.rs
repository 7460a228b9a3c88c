//! Redirects that get to none of the listeners.

use std::collections::HashSet;
use std::net::SocketAddr;

use toml::Spanned;

use crate::file::Resolved;
use crate::file::finding::Id;
use crate::file::source::shown;
use crate::file::warnings::Warnings;
use crate::file::warnings::ranges::Ranges;
use crate::file::warnings::region::{REMOTE, Regions, ipv4, special};
use crate::{Action, FilterRef, OnDead, Provider, Service};

/// Says it once of a provider and a family.
pub fn look(warnings: &mut Warnings, resolved: &Resolved, regions: &Regions, idle: &HashSet<FilterRef>) {
    // What gets to providers at all.
    let v4 = ipv4().without(&special());
    let v6 = Ranges::all().without(&special()).without(&ipv4());
    for (at, provider) in resolved.policy.providers.iter().enumerate() {
        let is_v4 = |listener: &SocketAddr| listener.ip().to_canonical().is_ipv4();
        let has_v4 = provider.listeners.iter().any(is_v4);
        let has_v6 = provider.listeners.iter().any(|listener| !is_v4(listener));
        // Without any, there is a mistake.
        let (lacking, meant) = match (has_v4, has_v6) {
            (true, false) => (Family::V6, &v6),
            (false, true) => (Family::V4, &v4),
            _ => continue,
        };
        let mut redirects = provider.filters.iter().enumerate().filter_map(|(filter, entry)| {
            let is_redirect = matches!(entry.action, Action::Redirect { .. });
            is_redirect.then_some(FilterRef::Provider { provider: at, filter })
        });
        let reaches = |filter: &FilterRef| {
            let region = regions.get(*filter).filter(|_| !idle.contains(filter));
            region.is_some_and(|region| !region.is_empty() && region.dimensions[REMOTE].meets(meant))
        };
        if let Some(filter) = redirects.find(reaches) {
            tell(warnings, at, provider, lacking, filter);
        }
    }
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

fn tell(warnings: &mut Warnings, at: usize, provider: &Provider, lacking: Family, filter: FilterRef) {
    let (lacks, has, loopback) = match lacking {
        Family::V4 => ("IPv4", "IPv6", "127.0.0.1"),
        Family::V6 => ("IPv6", "IPv4", "[::1]"),
    };
    let whose = match (provider.service, lacking) {
        // `SO_ORIGINAL_DST`, all that it asks for, has an address of the listener's family.
        (Service::Unaware, _) => "they",
        (Service::Aware, Family::V4) => "those of IPv4 sockets",
        (Service::Aware, Family::V6) => "those of sockets that are for IPv6 alone",
    };
    let become_of = match provider.on_dead {
        OnDead::Open => "go on without it",
        OnDead::Closed => "are refused",
    };
    let (name, filter_name) = (shown(&provider.name), warnings.file.shown_filter(filter));
    let what = format!(
        "the provider {name:?} has no {lacks} listener, and its filter {filter_name:?} redirects connections to {lacks} \
         addresses: {whose} {become_of}"
    );
    let port = provider.listeners.first().map_or(0, SocketAddr::port);
    let action = format!("add \"{loopback}:{port}\" to listen, or let remote be {has} prefixes alone");
    let entry = warnings.file.providers.get(at);
    let span = entry.map_or(0..0, |entry| entry.listeners.as_ref().map_or_else(|| entry.name_span(), Spanned::span));
    let place = warnings.file.filter_span(filter);
    warnings.add_with(Id::NoListener, span, what, &action, (place, "the filter is here"));
}
