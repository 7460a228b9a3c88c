//! Products that take their own address for where a client was going, as behind a TPROXY rule: unchanged, and without the
//! rule. The origins are on another host, where nothing that goes out from a loopback address would arrive.

use carnet_abi::{REASON_OWN_LISTENER, VERDICT_REDIRECT, VERDICT_REFUSE};
use carnet_e2e::netns;
use carnet_e2e::origin::Origin;
use carnet_e2e::programs::CURL_GOT_NOTHING;
use carnet_policy::SockName;

use crate::stage::Product::{self, Haproxy, Nginx, SquidTproxy};
use crate::stage::Stage;
use crate::way::{decisions, passes};

#[test]
fn haproxy_by_ipv6() {
    goes_through(Haproxy, &[1]);
}

#[test]
fn nginx_by_both_families() {
    goes_through(Nginx, &[0, 1]);
}

#[test]
fn squid_in_its_mode_for_tproxy_by_both_families() {
    goes_through(SquidTproxy, &[0, 1]);
}

/// Such a service takes its own listener for the destination. Its connection there is refused, and nothing goes round.
#[test]
fn who_is_not_told_dials_itself_and_is_stopped() {
    netns::alone(|| {
        let mut stage = Stage::new();
        stage.add(Nginx, SockName::Own);
        for family in [0, 1] {
            stage.sandbox.events();
            let ended = stage.curl("/", family);
            assert!(CURL_GOT_NOTHING.contains(&ended.code), "{ended:?}");
            let decided: Vec<_> = decisions(&mut stage).iter().map(|event| (event.verdict, event.reason)).collect();
            assert_eq!(decided.len(), 2, "{decided:?}");
            assert_eq!((decided[0].0, decided[1]), (VERDICT_REDIRECT, (VERDICT_REFUSE, REASON_OWN_LISTENER)));
            assert_eq!(stage.http[family].served(), []);
        }
    });
}

fn goes_through(product: Product, families: &[usize]) {
    let there = || ["10.99.0.2:0", "[fd99::2]:0"].map(Origin::http);
    netns::with_neighbour(there, |origins| {
        let mut stage = Stage::with(origins);
        stage.add(product, SockName::Destination);
        for &family in families {
            passes(&mut stage, &[0], family, &format!("/{product:?}/{family}"));
        }
    });
}
