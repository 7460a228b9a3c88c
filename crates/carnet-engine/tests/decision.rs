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
use carnet_policy::{Action, FilterRef, Image, Match, Policy, Question, decide, testing};
use libbpf_rs::{MapCore, MapFlags};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use zerocopy::FromBytes;

#[test]
fn the_kernel_decides_as_the_model_does() {
    let engine = RefCell::new(load());
    let mut runner = TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
    let answers = RefCell::new(BTreeSet::new());
    let result = runner.run(&(asked(), asked()), |cases| {
        let mut engine = engine.borrow_mut();
        // Each apply() writes to the slot that is not in force.
        let first = put_in_force(&mut engine, &cases.0.policy);
        let second = put_in_force(&mut engine, &cases.1.policy);
        prop_assert_ne!(first, second);
        for (case, slot) in [(&cases.0, first), (&cases.1, second)] {
            let image = case.policy.compile(1).expect("a valid policy");
            check(&engine, case, &image, slot, &answers)?;
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
fn the_kernel_decides_by_4096_filters_of_255_providers_as_the_model_does() {
    let mut engine = load();
    let mut runner = TestRunner::default();
    for _ in 0..3 {
        let policy = testing::largest_policy().new_tree(&mut runner).expect("a policy").current();
        let questions = vec(testing::question(&policy), 1000).new_tree(&mut runner).expect("questions").current();
        let slot = put_in_force(&mut engine, &policy);
        let image = policy.compile(1).expect("a valid policy");
        assert_eq!((image.providers.len(), image.rules.len()), (abi::MAX_PROVIDERS, abi::MAX_RULES));
        check(&engine, &Asked { policy, questions }, &image, slot, &RefCell::default()).expect("the same answers");
    }
}

#[test]
fn the_largest_policy_is_read_to_its_end() {
    let mut engine = load();
    let mut runner = TestRunner::deterministic();
    // Nothing matches but the very last filter.
    let mut policy = testing::largest_policy().new_tree(&mut runner).expect("a policy").current();
    let remote = "192.0.2.77:7777".parse().expect("an address");
    let nowhere = Match::default().to(IpAddr::from([192, 0, 2, 1])).on_ports(9..=9);
    policy.filters.iter_mut().for_each(|filter| filter.matches = nowhere.clone());
    for filter in policy.providers.iter_mut().flat_map(|provider| &mut provider.filters) {
        filter.matches = nowhere.clone();
    }
    let image = policy.compile(1).expect("a valid policy");
    let Some(FilterRef::Provider { provider, filter }) = image.filters.last().copied() else {
        panic!("the last filter is a provider's");
    };
    policy.providers[provider].filters[filter].matches = Match::default();
    policy.providers[provider].filters[filter].action = Action::Block;

    let slot = put_in_force(&mut engine, &policy);
    let question = image.question(&Question::to(remote), slot);
    let answer = engine.ask(&question).expect("the kernel answers").question;
    assert_eq!((answer.verdict.into(), answer.reason.into()), (abi::VERDICT_REFUSE, abi::REASON_BLOCKED));
    assert_eq!(answer.rule as usize, abi::MAX_RULES - 1);
}

/// Compares all answers to a case, and notes them.
fn check(
    engine: &Engine,
    case: &Asked,
    image: &Image,
    slot: u32,
    answers: &RefCell<BTreeSet<(u32, u32)>>,
) -> Result<(), TestCaseError> {
    let asked: Vec<_> = case.questions.iter().map(|question| image.question(question, slot)).collect();
    let mut answered = asked.clone();
    engine.ask_many(&mut answered, 1).expect("the kernel answers");
    for ((question, asked), kernel) in case.questions.iter().zip(asked).zip(answered) {
        let decision = decide(&case.policy, question);
        let expected = image.answer(asked, &decision).question;
        prop_assert_eq!(kernel.question, expected, "{:?}: {:?}", question, decision);
        answers.borrow_mut().insert((kernel.question.verdict.into(), kernel.question.reason.into()));
    }
    Ok(())
}

#[derive(Debug)]
struct Asked {
    policy: Policy,
    questions: Vec<Question>,
}

fn asked() -> impl Strategy<Value = Asked> {
    testing::small_policy().prop_flat_map(|policy| {
        let questions = vec(testing::question(&policy), 32..96);
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
