use carnet_policy::file::{Nowhere, PolicyFile};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn caller(uid: u32, cgroup: Option<&str>, role: Role) -> Caller {
    Caller { uid, gid: uid, pid: None, groups: Vec::new(), cgroup: cgroup.map(Into::into), role: Some(role) }
}

fn register(caller: &Caller, request: serde_json::Value) -> Result<Registration, Problem> {
    let request: SessionRequest = serde_json::from_value(request).unwrap();
    let listeners = request.providers.iter().map(|_| Vec::new()).collect();
    Registration::new(caller, request, listeners, 100)
}

/// The registration as a policy, which has another provider in it.
fn policy(registration: &Registration) -> carnet_policy::Policy {
    let own = "[[provider]]\nname = \"own\"\nrank = 10\nlisten = \"127.0.0.1:9\"\nowner = { uid = 9 }\n";
    let file = PolicyFile::parse("file", own, &crate::policy_file::Folder::current()).unwrap();
    let file = file.extend("session 1", &registration.saved.text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    file.resolve(&Nowhere).unwrap_or_else(|mistakes| panic!("{mistakes}")).policy
}

#[test]
fn a_registration_is_what_the_file_would_be() {
    let request = json!({
        "providers": [
            { "name": "a", "rank": 20, "listen": "127.0.0.1:81", "records": "unaware", "on-dead": "open", "direct": true,
              "reach": "anywhere", "sockname": "destination", "in-flight-limit": 7, "owner": { "uid": 5 },
              "filters": [{ "name": "f", "weight": 3, "action": "redirect", "context": "c",
                            "match": { "remote": ["10.0.0.0/8"], "remote-port": [80, "90-99"], "not-uid": 5, "via": "own" } }] },
            { "name": "b", "listen": ["127.0.0.1:82", "[::1]:82"] },
            { "name": "c", "listen": "127.0.0.1:83", "owner": { "uid": 6 } },
        ],
    });
    let registration = register(&caller(7, None, Role::Administrator), request).unwrap();
    let policy = policy(&registration);
    let ranks: Vec<_> = policy.providers.iter().map(|provider| (&provider.name[..], provider.rank)).collect();
    assert_eq!(ranks, [("own", 10), ("a", 20), ("b", 100), ("c", 110)]);
    let a = &policy.providers[1];
    assert_eq!((a.in_flight_limit, a.direct, a.filters[0].weight), (7, true, 3));
    assert_eq!(a.service, carnet_policy::Service::Unaware);
    assert_eq!(a.filters[0].action, carnet_policy::Action::Redirect { context: b"c".to_vec() });
    assert!(!a.filters[0].matches.via.is_any() && !a.filters[0].matches.uids.is_any());
    assert_eq!(policy.providers[2].owners, [carnet_policy::Owner::Uid(7)], "the caller's, where nothing is said");
    assert_eq!(registration.providers(), ["a", "b", "c"]);
}

#[test]
fn nobody_registers_what_is_anothers() {
    let with =
        |owner: serde_json::Value| json!({ "providers": [{ "name": "a", "listen": "127.0.0.1:81", "owner": owner }] });
    let own = caller(7, Some("/user.slice/product"), Role::Registrar);
    for (owner, is_own) in [
        (json!({ "uid": 7 }), true),
        (json!({ "uid": 0 }), false),
        (json!({ "uid": "root" }), false),
        (json!([{ "uid": 7 }, { "uid": 8 }]), false),
        (json!({ "cgroup": "/user.slice/product" }), true),
        (json!({ "cgroup": "/user.slice/product/part" }), true),
        (json!({ "cgroup": "/user.slice" }), false),
        (json!({ "cgroup": "/" }), false),
        (json!({ "cgroup": "/user.slice/product-b" }), false),
        (json!({ "cgroup": "/user.slice/product/../other" }), false),
    ] {
        assert_eq!(register(&own, with(owner.clone())).is_ok(), is_own, "{owner}");
        assert!(register(&caller(1, None, Role::Administrator), with(owner)).is_ok());
    }
    let in_the_root = caller(7, Some("/"), Role::Registrar);
    assert!(register(&in_the_root, with(json!({ "cgroup": "/anything" }))).is_err());
    let unsaid = json!({ "providers": [{ "name": "a", "listen": "127.0.0.1:81" }] });
    assert!(register(&caller(0, Some("/"), Role::Administrator), unsaid).is_err(), "whose it is has to be said");
}

#[test]
fn filters_of_the_host_are_the_administrators() {
    let request = json!({ "filters": [{ "name": "f", "action": "block", "match": { "remote": "192.0.2.1" } }] });
    let refused = register(&caller(7, None, Role::Registrar), request.clone()).unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Forbidden);
    let registration = register(&caller(7, None, Role::Administrator), request).unwrap();
    assert_eq!((policy(&registration).filters.len(), registration.host_filters()), (1, 1));
}

proptest! {
    /// Whatever a registrar writes stays what it is: a name, or a context.
    #[test]
    fn no_text_becomes_something_else(name in "\\PC{0,40}|[\"'\\\\\n\r\t\u{0}\u{7f}\\[\\]={}#]{0,20}", context in any::<String>()) {
        let request = json!({
            "providers": [{ "name": name, "listen": "127.0.0.1:81",
                            "filters": [{ "name": name, "action": "redirect", "context": context }] }],
        });
        let registration = register(&caller(7, None, Role::Registrar), request).unwrap();
        let table: toml::Table = registration.saved.text.parse().unwrap();
        let provider = &table["provider"][0];
        prop_assert_eq!(provider["name"].as_str(), Some(&name[..]));
        prop_assert_eq!(provider["filter"][0]["context"].as_str(), Some(&context[..]));
        prop_assert_eq!(table.keys().collect::<Vec<_>>(), ["filter", "provider"]);
        prop_assert_eq!(table["provider"].as_array().map(Vec::len), Some(1));
    }
}

#[test]
fn a_product_has_time_to_come_back() {
    let request = || json!({ "providers": [{ "name": "a", "listen": "127.0.0.1:81" }] });
    let registration = |uid| register(&caller(uid, None, Role::Registrar), request()).unwrap();
    let mut sessions = Sessions::left(vec![registration(7).saved]);
    assert_eq!((sessions.count(), sessions.texts().len()), (0, 1));
    assert_eq!(sessions.texts_with(&registration(8)).len(), 2, "another's is another");
    assert_eq!(sessions.texts_with(&registration(7)).len(), 1);
    let (id, _news) = sessions.begin(&registration(7));
    assert_eq!((sessions.count(), sessions.texts().len()), (1, 1));
    assert!(sessions.forget_orphans().is_empty());

    let mut held = Held::default();
    assert!(sessions.end(id, SessionEnd::DaemonEnding, &held).is_none());
    assert_eq!(sessions.count(), 1);
    held.hold("a".into(), Vec::new(), Duration::from_secs(60));
    assert!(sessions.end(id, SessionEnd::ClientGone, &held).is_none());
    assert_eq!((sessions.count(), sessions.saved(None).len()), (0, 1), "it restarts");
    held.forget("a");
    assert!(sessions.end(id, SessionEnd::ClientGone, &held).is_some());
    assert!(sessions.saved(None).is_empty());
}
