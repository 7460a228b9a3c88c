//! The Rust twins against the BTF of the kernel object: every struct's fields, offsets and sizes, and every number.
//! Needs no privilege.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::Path;

use carnet_abi as abi;
use libbpf_rs::btf::types::{Array, Enum, Int, MemberAttr, Ptr, Struct};
use libbpf_rs::btf::{Btf, BtfType, HasSize, TypeId};

#[test]
fn every_twin_has_the_layout_of_its_struct() {
    let btf = btf();
    for (name, size, fields) in TWINS.iter().chain(carnet_engine::PRIVATE_TWINS) {
        compare(&btf, name, *size, fields).unwrap();
    }
}

#[test]
fn the_engine_finds_a_flights_counts() {
    let flight = layout(&btf(), "carnet_flight").unwrap();
    let at = |name| flight.fields.iter().find(|(field, ..)| field == name).unwrap().1;
    assert_eq!(at("clients"), carnet_engine::FLIGHT_COUNTS);
    assert_eq!(at("held"), carnet_engine::FLIGHT_COUNTS + 4);
}

#[test]
fn a_twin_that_differs_is_told() {
    let btf = btf();
    let fields = abi::Hop::FIELDS;
    assert_eq!(compare(&btf, "carnet_hop", 16, fields), Ok(()));

    let mut moved = fields.to_vec();
    moved[1].1 += 4;
    let mut resized = fields.to_vec();
    resized[0].2 -= 4;
    let mut renamed = fields.to_vec();
    renamed[2].0 = "rule";
    let swapped: Vec<_> = fields.iter().rev().copied().collect();
    for wrong in [&moved[..], &resized, &renamed, &swapped, &fields[..2]] {
        compare(&btf, "carnet_hop", 16, wrong).unwrap_err();
    }
    compare(&btf, "carnet_hop", 24, fields).unwrap_err();
    compare(&btf, "carnet_nothing", 16, fields).unwrap_err();
    assert!(compare_numbers(&btf, "carnet_how", &[("CARNET_HOW_CLOSED", 2)]).is_err());
}

#[test]
fn every_number_is_that_of_the_header() {
    let btf = btf();
    for (name, numbers) in NUMBERS {
        compare_numbers(&btf, name, numbers).unwrap();
    }
}

struct Layout {
    size: usize,
    /// Name, offset, size; all in bytes.
    fields: Vec<(String, usize, usize)>,
}

fn btf() -> Btf<'static> {
    Btf::from_path(Path::new(env!("OUT_DIR")).join("carnet.bpf.o")).expect("the object has BTF")
}

fn layout(btf: &Btf<'_>, name: &str) -> Result<Layout, String> {
    let Some(of) = btf.type_by_name::<Struct<'_>>(name) else {
        return Err(format!("struct {name} is not in the object's BTF"));
    };
    let fields = of.iter().map(|member| {
        let field = member.name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let MemberAttr::Normal { offset } = member.attr else {
            return Err(format!("{name}.{field} is a bit field"));
        };
        Ok((field, offset as usize / 8, size_of_type(btf, member.ty)?))
    });
    Ok(Layout { size: of.size(), fields: fields.collect::<Result<_, _>>()? })
}

fn size_of_type(btf: &Btf<'_>, id: TypeId) -> Result<usize, String> {
    let ty = btf.type_by_id::<BtfType<'_>>(id).ok_or("a type is missing")?.skip_mods_and_typedefs();
    if let Ok(array) = Array::try_from(ty) {
        return Ok(array.capacity() * size_of_type(btf, array.ty())?);
    }
    let size = Int::try_from(ty).map(|ty| ty.size());
    let size = size.or_else(|ty| Struct::try_from(ty).map(|ty| ty.size()));
    let size = size.or_else(|ty| Enum::try_from(ty).map(|ty| ty.size()));
    let size = size.or_else(|ty| Ptr::try_from(ty).map(|_| 8));
    size.map_err(|ty| format!("{:?} has no size here", ty.kind()))
}

fn compare(btf: &Btf<'_>, name: &str, size: usize, twin: &[(&str, usize, usize)]) -> Result<(), String> {
    let kernel = layout(btf, name)?;
    if kernel.size != size {
        return Err(format!("{name} has {} bytes, its twin has {size}", kernel.size));
    }
    let twin: Vec<_> = twin.iter().map(|&(field, offset, size)| (field.to_owned(), offset, size)).collect();
    if kernel.fields != twin {
        return Err(format!("{name} is\n{:#?}\nits twin is\n{twin:#?}", kernel.fields));
    }
    Ok(())
}

fn compare_numbers(btf: &Btf<'_>, name: &str, twin: &[(&str, u64)]) -> Result<(), String> {
    let kernel = btf.type_by_name::<Enum<'_>>(name).ok_or(format!("enum {name} is not in the object's BTF"))?;
    let name_of = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
    let kernel: Vec<_> = kernel.iter().map(|each| (each.name.map(name_of).unwrap_or_default(), each.value)).collect();
    let twin: Vec<_> = twin.iter().map(|&(name, value)| (name.to_owned(), value as i64)).collect();
    if kernel == twin { Ok(()) } else { Err(format!("enum {name} is {kernel:?}, its twin is {twin:?}")) }
}

/// C name, size and fields of every twin in `carnet-abi`.
const TWINS: &[carnet_engine::Twin] = &[
    ("carnet_addr", size_of::<abi::Address>(), abi::Address::FIELDS),
    ("carnet_origin", size_of::<abi::Origin>(), abi::Origin::FIELDS),
    ("carnet_hop", size_of::<abi::Hop>(), abi::Hop::FIELDS),
    ("carnet_records", size_of::<abi::Records>(), abi::Records::FIELDS),
    ("carnet_flow", size_of::<abi::Flow>(), abi::Flow::FIELDS),
    ("carnet_config", size_of::<abi::Config>(), abi::Config::FIELDS),
    ("carnet_key", size_of::<abi::Key>(), abi::Key::FIELDS),
    ("carnet_owner", size_of::<abi::Owner>(), abi::Owner::FIELDS),
    ("carnet_provider", size_of::<abi::Provider>(), abi::Provider::FIELDS),
    ("carnet_rule", size_of::<abi::Rule>(), abi::Rule::FIELDS),
    ("carnet_policy", size_of::<abi::Policy>(), abi::Policy::FIELDS),
    ("carnet_route_key", size_of::<abi::RouteKey>(), abi::RouteKey::FIELDS),
    ("carnet_routing", size_of::<abi::Routing>(), abi::Routing::FIELDS),
    ("carnet_claim", size_of::<abi::Claim>(), abi::Claim::FIELDS),
    ("carnet_context", size_of::<abi::Context>(), abi::Context::FIELDS),
    ("carnet_question", size_of::<abi::Question>(), abi::Question::FIELDS),
    ("carnet_event", size_of::<abi::Event>(), abi::Event::FIELDS),
];

/// The numbers of one enum, under the constants' names.
macro_rules! numbers {
    ($($enum:literal: $($name:ident)*,)*) => {
        &[$(($enum, &[$((concat!("CARNET_", stringify!($name)), abi::$name as u64),)*]),)*]
    };
}

const NUMBERS: &[(&str, &[(&str, u64)])] = numbers! {
    "carnet_action": ACTION_REDIRECT ACTION_SKIP ACTION_PERMIT ACTION_BLOCK,
    "carnet_verdict": VERDICT_PASS VERDICT_REDIRECT VERDICT_DIRECT VERDICT_REFUSE,
    "carnet_reason": REASON_RULE REASON_DEFAULT REASON_DEAD REASON_STRANGER REASON_FAMILY REASON_BLOCKED
        REASON_OWN_LISTENER REASON_NOT_DIRECT REASON_TERMINAL REASON_RUNAWAY REASON_TOO_DEEP REASON_SPECIAL
        REASON_KERNEL REASON_NO_ROOM REASON_DEVICE REASON_OUTSIDE REASON_NO_ROUTE REASON_LATELY REASON_SHARE
        REASON_OTHER_ENGINE REASON_UDP REASON_QUIC REASON_SOCKET REASON_ELSEWHERE,
    "carnet_event_kind": EVENT_CONNECT EVENT_SET EVENT_END EVENT_LOST EVENT_STRANGER EVENT_DATAGRAM
        EVENT_SOCKET,
    "carnet_how": HOW_CLOSED HOW_RESET HOW_ABORTED HOW_FAILED,
    "carnet_counter": COUNT_EVENTS_LOST COUNT_REDIRECTED COUNT_HANDED_OVER COUNT_LOST_CONTEXT COUNT_STRANGERS
        COUNT_NO_ROOM COUNT_HELD_BACK COUNT_NOT_INFERRED COUNT_OVER_SHARE COUNTERS,
    "carnet_knowledge": KNOWN STRAYED AMBIGUOUS,
    "carnet_image_version": IMAGE_VERSION,
};
