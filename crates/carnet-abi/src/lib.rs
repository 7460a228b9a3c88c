//! The bytes that Carnet's kernel program, its engine and redirect services exchange.
//!
//! `include/carnet_abi.h` (socket options, public) and `include/carnet_image.h` (configuration, policy, events; private
//! to one build) are the source of truth; these are their Rust twins, with the same field names. Sizes are asserted
//! here, offsets are compared with the BTF of the built kernel object by a test of `carnet-engine`. All integers are in
//! host byte order: nothing here leaves the host.
#![no_std]
#![forbid(unsafe_code)]

mod address;
mod event;
mod image;
mod options;

pub use address::Address;
pub use image::*;
pub use options::*;

/// Declares the C structs' twins: same layout, zerocopy derives, size asserted.
macro_rules! twins {
    ($($(#[$meta:meta])* struct $name:ident: $size:literal { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, Eq, Hash, PartialEq,
            zerocopy::FromBytes, zerocopy::Immutable, zerocopy::IntoBytes, zerocopy::KnownLayout,
        )]
        #[repr(C)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        const _: () = assert!(size_of::<$name>() == $size);

        impl $name {
            /// Name, offset and size in bytes of every field, for the comparison with the kernel object's BTF.
            pub const FIELDS: &[(&str, usize, usize)] = &[
                $((stringify!($field), core::mem::offset_of!($name, $field), size_of::<$type>()),)*
            ];
        }

        impl Default for $name {
            fn default() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }
        }
    )*};
}
pub(crate) use twins;
