//! The kernel program's decision against `carnet_policy::decide`, asked in the running kernel. Needs root.
//!
//! The two are written differently on purpose, so that a mistake in one is not repeated in the other. A case is two
//! policies, one in each of the kernel's slots, and questions to both: an answer must not come from the wrong slot.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use carnet_abi as abi;
use carnet_engine::cgroup::{Cgroup, Hierarchy};
use carnet_engine::{Engine, Options};
use carnet_policy::{Action, FilterRef, Match, Policy, Question, decide, testing};
use libbpf_rs::{MapCore, MapFlags};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use zerocopy::FromBytes;

#[test]
fn the_kernel_decides_as_the_model_does() {
    let engine = RefCell::new(load());
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let answers = RefCell::new(BTreeSet::new());
    let result = runner.run(&(asked(), asked()), |cases| {
        let mut engine = engine.borrow_mut();
        // Each apply() writes to the slot that is not in force.
        let first = put_in_force(&mut engine, &cases.0.policy);
        let second = put_in_force(&mut engine, &cases.1.policy);
        prop_assert_ne!(first, second);
        for (case, slot) in [(&cases.0, first), (&cases.1, second)] {
            let image = case.policy.compile(1).expect("a valid policy");
            for question in &case.questions {
                let question_in_slot = image.question(question, slot);
                let decision = decide(&case.policy, question);
                let kernel = engine.ask(&question_in_slot).expect("the kernel answers");
                prop_assert_eq!(kernel, image.answer(question_in_slot, &decision), "{:?}: {:?}", question, decision);
                answers.borrow_mut().insert((kernel.verdict, kernel.reason));
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let missing: Vec<_> = ANSWERS.iter().filter(|answer| !answers.borrow().contains(answer)).collect();
    assert!(missing.is_empty(), "no case had these answers (verdict, reason): {missing:?}");
}

#[test]
fn the_largest_policy_is_read_to_its_end() {
    let mut engine = load();
    let mut runner = TestRunner::deterministic();
    let full = loop {
        let tree = testing::policy().new_tree(&mut runner).expect("a policy");
        let policy = tree.current();
        let filters: usize = policy.providers.iter().map(|provider| provider.filters.len()).sum();
        if filters + policy.filters.len() == abi::MAX_RULES {
            break policy;
        }
    };
    // Nothing matches but the very last filter.
    let mut policy = full;
    let remote = "192.0.2.77:7777".parse().expect("an address");
    let nowhere = Match { remote: Some(IpAddr::from([192, 0, 2, 1]).into()), ports: 9..=9 };
    policy.filters.iter_mut().for_each(|filter| filter.matches = nowhere.clone());
    for filter in policy.providers.iter_mut().flat_map(|provider| &mut provider.filters) {
        filter.matches = nowhere.clone();
    }
    let image = policy.compile(1).expect("a valid policy");
    let Some(FilterRef::Provider { provider, filter }) = image.filters.last().copied() else {
        panic!("the last filter is a provider's");
    };
    policy.providers[provider].filters[filter].matches = Match::ALL;
    policy.providers[provider].filters[filter].action = Action::Block;

    let slot = put_in_force(&mut engine, &policy);
    let question = image.question(&Question { remote, record: None, dialer: None, listener: None, dead: 0 }, slot);
    let answer = engine.ask(&question).expect("the kernel answers");
    assert_eq!((answer.verdict, answer.reason), (abi::VERDICT_REFUSE, abi::REASON_BLOCKED));
    assert_eq!(answer.rule as usize, abi::MAX_RULES - 1);
}

#[derive(Debug)]
struct Asked {
    policy: Policy,
    questions: Vec<Question>,
}

fn asked() -> impl Strategy<Value = Asked> {
    testing::policy().prop_flat_map(|policy| {
        let questions = vec(testing::question(&policy), 1..24);
        (Just(policy), questions).prop_map(|(policy, questions)| Asked { policy, questions })
    })
}

/// An engine with the program that asks the decision. Nothing is attached, so its cgroup can go at once.
fn load() -> Engine {
    let hierarchy = Hierarchy::find().expect("a cgroup2 hierarchy");
    let name = format!("carnet-decision.{}.{:?}", std::process::id(), std::thread::current().id());
    let cgroup = Cgroup::create(&hierarchy, &name).expect("a cgroup; this test needs root");
    let engine = Engine::load(&cgroup, &Options { for_test: true, ..Options::default() });
    cgroup.remove_tree(Duration::from_secs(5)).expect("an empty cgroup goes");
    engine.expect("the engine loads")
}

/// Returns the slot.
fn put_in_force(engine: &mut Engine, policy: &Policy) -> u32 {
    static GENERATION: AtomicU64 = AtomicU64::new(1);
    let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
    engine.apply(&policy.compile(generation).expect("a valid policy")).expect("the policy is applied");
    let config = engine.map_handle("carnet_config").expect("the configuration");
    let config = config.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).expect("readable").expect("written");
    abi::Config::read_from_bytes(&config).expect("a configuration").policy_slot
}

/// Every (verdict, reason) that a decision can have.
const ANSWERS: [(u32, u32); 10] = [
    (abi::VERDICT_PASS, abi::REASON_RULE),
    (abi::VERDICT_PASS, abi::REASON_DEFAULT),
    (abi::VERDICT_PASS, abi::REASON_TERMINAL),
    (abi::VERDICT_REDIRECT, abi::REASON_RULE),
    (abi::VERDICT_DIRECT, abi::REASON_RULE),
    (abi::VERDICT_REFUSE, abi::REASON_DEAD),
    (abi::VERDICT_REFUSE, abi::REASON_BLOCKED),
    (abi::VERDICT_REFUSE, abi::REASON_OWN_LISTENER),
    (abi::VERDICT_REFUSE, abi::REASON_NOT_DIRECT),
    (abi::VERDICT_REFUSE, abi::REASON_TOO_DEEP),
];
