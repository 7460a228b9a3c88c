//! The image and the model say the same: an interpreter of the image, written from the rules that the kernel program
//! follows, against the reference decision.

use std::collections::{BTreeMap, BTreeSet};

use carnet_abi as abi;
use carnet_policy::{FilterRef, Image, Policy, decide, testing};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_image_decides_as_the_model(
        (policy, questions) in testing::policy().prop_flat_map(|policy| {
            let questions = prop::collection::vec(testing::question(&policy), 64);
            (Just(policy), questions)
        })
    ) {
        let image = policy.compile(1).unwrap();
        for question in questions {
            let asked = image.question(&question, 0);
            let expected = image.answer(asked, &decide(&policy, &question));
            prop_assert_eq!(interpret(&image.policy, asked), expected, "{:?}", question);
        }
    }

    #[test]
    fn every_filter_and_provider_has_its_place(policy in testing::policy()) {
        let image = policy.compile(7).unwrap();
        prop_assert_eq!(image.policy.generation, 7);
        prop_assert_eq!(image.policy.providers as usize, policy.providers.len());
        prop_assert_eq!(image.policy.rules as usize, image.filters.len());

        let places: BTreeSet<usize> = image.providers.iter().copied().collect();
        prop_assert_eq!(places.len(), policy.providers.len());
        let providers = &image.policy.provider[..image.providers.len()];
        prop_assert!(providers.is_sorted_by(|a, b| a.rank < b.rank));
        for (compiled, &position) in providers.iter().zip(&image.providers) {
            prop_assert_eq!(compiled.handle, policy.providers[position].handle);
            let listeners = &compiled.listener[..compiled.listeners as usize];
            let addresses: Vec<_> = listeners.iter().map(|listener| listener.to_socket_addr()).collect();
            prop_assert_eq!(&addresses, &policy.providers[position].listeners);
        }

        for (index, filter) in image.filters.iter().enumerate() {
            let rule = &image.policy.rule[index];
            prop_assert_eq!(rule.filter as usize, index + 1);
            prop_assert_eq!(image.filter(rule.filter), Some(*filter));
            prop_assert!(policy.filter_name(*filter).is_some());
            let provider = match filter {
                FilterRef::Host(_) => abi::NONE,
                FilterRef::Provider { provider, .. } => {
                    image.providers.iter().position(|position| position == provider).unwrap() as u32
                }
            };
            prop_assert_eq!(rule.provider, provider);
        }
        prop_assert_eq!(image.filter(0), None);
        prop_assert_eq!(image.filter(image.policy.rules + 1), None);
    }

    #[test]
    fn contexts_of_near_generations_never_share_a_key(
        before in testing::policy(), after in testing::policy(), generation: u64, apart in 1..Image::GENERATIONS
    ) {
        let before = before.compile(generation).unwrap();
        let after = after.compile(generation.wrapping_add(apart)).unwrap();
        let keys = context_keys(&before);
        prop_assert!(keys.is_disjoint(&context_keys(&after)));
        prop_assert!(!keys.contains(&0));
        prop_assert_eq!(keys.len(), before.contexts.len());
    }

    #[test]
    fn every_redirect_gets_its_own_context(policy in testing::policy()) {
        let image = policy.compile(3).unwrap();
        let contexts: BTreeMap<u32, &abi::Context> = image.contexts.iter().map(|(key, value)| (*key, value)).collect();
        let mut named = 0;
        for (rule, filter) in image.policy.rule.iter().zip(&image.filters) {
            let expected = context_of(&policy, *filter);
            if rule.context == 0 {
                prop_assert_eq!(expected, &[][..]);
            } else {
                named += 1;
                let context = contexts[&rule.context];
                prop_assert_eq!(&context.bytes[..context.size as usize], expected);
            }
        }
        prop_assert_eq!(named, contexts.len());
    }
}

fn context_keys(image: &Image) -> BTreeSet<u32> {
    image.contexts.iter().map(|(key, _)| *key).collect()
}

fn context_of(policy: &Policy, filter: FilterRef) -> &[u8] {
    match filter {
        FilterRef::Host(_) => &[],
        FilterRef::Provider { provider, filter } => match &policy.providers[provider].filters[filter].action {
            carnet_policy::Action::Redirect { context } => context,
            _ => &[],
        },
    }
}

/// The kernel program's walk over the rules.
fn interpret(policy: &abi::Policy, question: abi::Question) -> abi::Question {
    let answer = |verdict, reason, provider, rule| abi::Question { verdict, reason, provider, rule, ..question };
    let dialer = policy.provider.get(question.dialer as usize);
    let floor = dialer.map_or(question.floor, |dialer| question.floor.max(dialer.rank as i32));

    if let Some(listener) = policy.provider.get(question.listener as usize) {
        let refuse = |reason| answer(abi::VERDICT_REFUSE, reason, question.listener, abi::NONE);
        return if question.dialer == question.listener {
            refuse(abi::REASON_OWN_LISTENER)
        } else if listener.flags & abi::PROVIDER_DIRECT == 0 {
            refuse(abi::REASON_NOT_DIRECT)
        } else if listener.rank as i32 <= floor {
            refuse(abi::REASON_OWN_LISTENER)
        } else if question.depth >= abi::MAX_HOPS as u32 {
            refuse(abi::REASON_TOO_DEEP)
        } else {
            answer(abi::VERDICT_DIRECT, abi::REASON_RULE, question.listener, abi::NONE)
        };
    }
    let terminal = dialer.is_some_and(|dialer| dialer.flags & abi::PROVIDER_DIRECT != 0) && question.has_record == 0;

    let mut passed_over = 0_u32;
    for (index, rule) in policy.rule[..policy.rules as usize].iter().enumerate() {
        let index = index as u32;
        if rule.provider != abi::NONE {
            let provider = &policy.provider[rule.provider as usize];
            if terminal || provider.rank as i32 <= floor || passed_over >> rule.provider & 1 == 1 {
                continue;
            }
        }
        if !covers(rule, &question.remote) {
            continue;
        }
        match rule.action {
            abi::ACTION_PERMIT => return answer(abi::VERDICT_PASS, abi::REASON_RULE, abi::NONE, index),
            abi::ACTION_BLOCK => return answer(abi::VERDICT_REFUSE, abi::REASON_BLOCKED, rule.provider, index),
            abi::ACTION_SKIP => passed_over |= 1 << rule.provider,
            abi::ACTION_REDIRECT if question.dead >> rule.provider & 1 == 1 => {
                if policy.provider[rule.provider as usize].flags & abi::PROVIDER_OPEN == 0 {
                    return answer(abi::VERDICT_REFUSE, abi::REASON_DEAD, rule.provider, index);
                }
                passed_over |= 1 << rule.provider;
            }
            abi::ACTION_REDIRECT if question.depth >= abi::MAX_HOPS as u32 => {
                return answer(abi::VERDICT_REFUSE, abi::REASON_TOO_DEEP, rule.provider, index);
            }
            abi::ACTION_REDIRECT => return answer(abi::VERDICT_REDIRECT, abi::REASON_RULE, rule.provider, index),
            action => panic!("rule {index} has action {action}"),
        }
    }
    match policy.default_action {
        abi::ACTION_PERMIT if terminal => answer(abi::VERDICT_PASS, abi::REASON_TERMINAL, abi::NONE, abi::NONE),
        abi::ACTION_PERMIT => answer(abi::VERDICT_PASS, abi::REASON_DEFAULT, abi::NONE, abi::NONE),
        _ => answer(abi::VERDICT_REFUSE, abi::REASON_BLOCKED, abi::NONE, abi::NONE),
    }
}

fn covers(rule: &abi::Rule, remote: &abi::Address) -> bool {
    let bit = |bytes: &[u8; 16], at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    (rule.port_min..=rule.port_max).contains(&remote.port)
        && (0..rule.prefix_len as usize).all(|at| bit(&rule.prefix, at) == bit(&remote.ip, at))
}

/// The comparison is worth as much as the questions: they must meet every outcome, also in the largest policies.
#[test]
fn generated_questions_meet_every_outcome() {
    let mut runner = TestRunner::deterministic();
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    let mut largest = 0;
    for _ in 0..300 {
        let policy = testing::policy().new_tree(&mut runner).unwrap().current();
        let image = policy.compile(1).unwrap();
        if image.policy.providers as usize == abi::MAX_PROVIDERS && image.policy.rules as usize == abi::MAX_RULES {
            largest += 1;
        }
        for _ in 0..20 {
            let question = testing::question(&policy).new_tree(&mut runner).unwrap().current();
            let decision = decide(&policy, &question);
            let by = match decision.filter {
                None => "none",
                Some(FilterRef::Host(_)) => "host",
                Some(FilterRef::Provider { .. }) => "provider",
            };
            *outcomes.entry(format!("{:?} {:?} {by}", decision.verdict, decision.reason)).or_default() += 1;
        }
    }
    let expected = [
        "Direct Rule none",
        "Pass Default none",
        "Pass Rule host",
        "Pass Terminal none",
        "Redirect Rule provider",
        "Refuse Blocked host",
        "Refuse Blocked none",
        "Refuse Blocked provider",
        "Refuse Dead provider",
        "Refuse NotDirect none",
        "Refuse OwnListener none",
        "Refuse TooDeep none",
        "Refuse TooDeep provider",
    ];
    println!("{outcomes:#?}, {largest} largest policies");
    assert_eq!(Vec::from_iter(outcomes.keys()), expected);
    assert!(outcomes.values().all(|&count| count >= 20), "{outcomes:?}");
    assert!(largest >= 10);
}
