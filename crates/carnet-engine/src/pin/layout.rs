//! A number for each map's layout: of its key and value, with every field's name, place and size, by the object's BTF.

use std::collections::BTreeMap;
use std::fmt::Write;

use libbpf_rs::btf::types::{Array, Composite, Enum, Int, MemberAttr, Ptr, Var};
use libbpf_rs::btf::{Btf, BtfType, HasSize, ReferencesType, TypeId};

use super::is_shared;
use crate::load::OBJECT;
use crate::{Error, ErrorKind};

/// Of this build's maps.
pub fn layouts() -> Result<BTreeMap<String, u64>, Error> {
    let failed = |error| Error::bpf("cannot read the kernel object's types", error);
    let btf = Btf::from_raw("carnet", OBJECT).map_err(failed)?;
    let btf = btf.ok_or_else(|| Error::new(ErrorKind::Io, "the kernel object has no types"))?;
    let maps = btf.type_by_kind::<Var<'_>>().filter_map(|map| {
        let name = map.name()?.to_str().filter(|name| is_shared(name))?;
        let parts = Composite::try_from(map.referenced_type().skip_mods_and_typedefs()).ok()?;
        let mut text = String::new();
        for part in parts.iter().filter(|part| part.name.is_some_and(|name| name == "key" || name == "value")) {
            let pointer = Ptr::try_from(btf.type_by_id::<BtfType<'_>>(part.ty)?).ok()?;
            describe(&btf, pointer.referenced_type_id(), &mut text);
        }
        // Of a map of maps there are only sizes.
        if let Some((_, element)) = TABLES.iter().find(|(table, _)| *table == name) {
            describe(&btf, btf.type_by_name::<Composite<'_>>(element)?.type_id(), &mut text);
        }
        Some((name.to_owned(), fnv(text.as_bytes())))
    });
    Ok(maps.collect())
}

/// Maps of maps, and the structs in the inner ones.
const TABLES: [(&str, &str); 3] =
    [("carnet_classes", "carnet_class"), ("carnet_nodes32", "carnet_node32"), ("carnet_nodes128", "carnet_node128")];

fn describe(btf: &Btf<'_>, id: TypeId, out: &mut String) {
    // Writing to a string does not fail.
    let _ = match btf.type_by_id::<BtfType<'_>>(id).map(|ty| ty.skip_mods_and_typedefs()) {
        None => write!(out, "void;"),
        Some(ty) => describe_type(btf, ty, out),
    };
}

fn describe_type(btf: &Btf<'_>, ty: BtfType<'_>, out: &mut String) -> std::fmt::Result {
    if let Ok(composite) = Composite::try_from(ty) {
        write!(out, "{}{{", composite.size())?;
        for member in composite.iter() {
            let place = match member.attr {
                MemberAttr::Normal { offset } => (offset, 0),
                MemberAttr::BitField { size, offset } => (offset, size),
            };
            write!(out, "{}@{place:?}:", member.name.unwrap_or_default().to_string_lossy())?;
            describe(btf, member.ty, out);
        }
        return write!(out, "}}");
    }
    if let Ok(array) = Array::try_from(ty) {
        write!(out, "{}*", array.capacity())?;
        describe(btf, array.ty(), out);
        return Ok(());
    }
    let size = Int::try_from(ty).map(|ty| ty.size()).or_else(|ty| Enum::try_from(ty).map(|ty| ty.size()));
    write!(out, "{:?}{};", ty.kind(), size.unwrap_or_default())
}

/// FNV-1a: the same in every build, which the standard library's hashes are not.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_map_of_the_engine_has_a_layout_of_its_own() {
        let layouts = layouts().expect("the object has BTF");
        assert!(layouts.len() >= 18 && layouts.contains_key("carnet_socks"), "{layouts:?}");
        // Not one of them has been taken for "nothing is known of it", but for the ring buffer: it has no values.
        let unknown: Vec<_> = layouts.iter().filter(|&(_, &layout)| layout == fnv(b"")).map(|(name, _)| name).collect();
        assert_eq!(unknown, ["carnet_events"]);
        assert_ne!(layouts["carnet_socks"], layouts["carnet_claims"]);
        assert_eq!(layouts, super::layouts().expect("the object has BTF"), "it is the same each time");
    }

    #[test]
    fn the_tables_layouts_differ() {
        let layouts = layouts().expect("the object has BTF");
        // Nobody reads what is in carnet_grace: it is the number of a table of which only the sizes are known.
        let tables: BTreeSet<_> =
            TABLES.iter().map(|(table, _)| layouts[*table]).chain([layouts["carnet_grace"]]).collect();
        assert_eq!(tables.len(), TABLES.len() + 1, "{layouts:?}");
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
