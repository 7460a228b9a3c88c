use std::net::{IpAddr, Ipv6Addr};

/// Addresses that begin with the same bits, in the v4-mapped form. Sorted, each stands right before what it covers.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Prefix {
    bits: u128,
    length: u8,
}

impl Prefix {
    /// The first `length` bits of the address, in its own family's count. Longer than the family has: all of them.
    pub fn new(address: IpAddr, length: u8) -> Self {
        match address {
            IpAddr::V4(v4) => Self::of_bits(v4.to_ipv6_mapped().to_bits(), length.saturating_add(96)),
            IpAddr::V6(v6) => Self::of_bits(v6.to_bits(), length),
        }
    }

    /// Bits of the v4-mapped form that count.
    pub fn length(self) -> u8 {
        self.length
    }

    /// The address, the rest of it zero.
    pub fn address(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.bits)
    }

    /// Whether all of the other is inside.
    pub fn covers(self, other: Self) -> bool {
        self.length <= other.length && other.shortened(self.length) == self
    }

    /// With at most this length.
    pub fn shortened(self, length: u8) -> Self {
        Self::of_bits(self.bits, length.min(self.length))
    }

    fn of_bits(bits: u128, length: u8) -> Self {
        let length = length.min(128);
        let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        Self { bits: bits & mask, length }
    }
}
