use core::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

crate::twins! {
    /// An address and port in the one normal form: IPv4 is stored as `::ffff:a.b.c.d`.
    struct Address: 24 {
        /// The address, network order.
        ip: [u8; 16],
        /// Scope id of a link-local IPv6 address, else 0.
        scope: u32,
        /// Port, host order.
        port: u16,
        /// Zero.
        pad: u16,
    }
}

impl Address {
    /// The address as an application would write it: IPv4 where it is an IPv4-mapped one.
    pub fn to_socket_addr(&self) -> SocketAddr {
        let v6 = Ipv6Addr::from(self.ip);
        match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::V4(SocketAddrV4::new(v4, self.port)),
            None => SocketAddr::V6(SocketAddrV6::new(v6, self.port, 0, self.scope)),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        let (ip, scope) = match addr {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped().octets(), 0),
            SocketAddr::V6(v6) => (v6.ip().octets(), v6.scope_id()),
        };
        Self { ip, scope, port: addr.port(), pad: 0 }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        SocketAddr::new(ip, 0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_come_back() {
        for text in ["192.0.2.7:80", "[2001:db8::1]:443", "[fe80::1%3]:22", "0.0.0.0:0"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(Address::from(addr).to_socket_addr(), addr);
        }
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_form() {
        let addr: SocketAddr = "[::ffff:192.0.2.7]:80".parse().unwrap();
        assert_eq!(Address::from(addr).to_socket_addr(), "192.0.2.7:80".parse().unwrap());
    }
}
