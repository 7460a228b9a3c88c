//! The image and the model say the same: an evaluator of the image, written from the rules that the kernel program
//! follows, against the reference decision.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;

use carnet_abi as abi;
use carnet_policy::{
    Condition, FilterRef, HostAction, HostFilter, Image, Match, Part, Policy, Prefix, Progress, Who, decide, testing,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_image_decides_as_the_model(
        (policy, questions) in testing::small_policy().prop_flat_map(|policy| {
            let questions = prop::collection::vec(testing::question(&policy), 64);
            (Just(policy), questions)
        })
    ) {
        let image = policy.compile(1).unwrap();
        for question in questions {
            let asked = image.question(&question, 0);
            let expected = image.answer(asked, &decide(&policy, &question));
            prop_assert_eq!(testing::evaluate(&image, &asked).question, expected.question, "{:?}", question);
        }
    }

    #[test]
    fn a_step_of_compiling_is_never_taken_back(policy in testing::small_policy()) {
        let mut last = Progress { part: Part::Remote, done: 0, of: 0 };
        policy.compile_with(1, &mut |progress| {
            assert!(last.done <= progress.done && progress.done <= progress.of);
            last = progress;
        }).unwrap();
        prop_assert_eq!(last.done, last.of);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_largest_image_decides_as_the_model(
        (policy, questions) in testing::largest_policy().prop_flat_map(|policy| {
            let questions = prop::collection::vec(testing::question(&policy), 512);
            (Just(policy), questions)
        })
    ) {
        let image = policy.compile(1).unwrap();
        prop_assert_eq!((image.providers.len(), image.rules.len()), (abi::MAX_PROVIDERS, abi::MAX_RULES));
        for question in questions {
            let asked = image.question(&question, 0);
            let expected = image.answer(asked, &decide(&policy, &question));
            prop_assert_eq!(testing::evaluate(&image, &asked).question, expected.question, "{:?}", question);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_filter_and_provider_has_its_place(policy in testing::small_policy()) {
        let image = policy.compile(7).unwrap();
        prop_assert_eq!(image.policy.generation, 7);
        prop_assert_eq!(image.policy.providers as usize, policy.providers.len());
        prop_assert_eq!((image.policy.rules as usize, image.rules.len()), (image.filters.len(), image.filters.len()));

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
            let rule = &image.rules[index];
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
        before in testing::small_policy(), after in testing::small_policy(), generation: u64, apart in 1..Image::GENERATIONS
    ) {
        let before = before.compile(generation).unwrap();
        let after = after.compile(generation.wrapping_add(apart)).unwrap();
        let keys = context_keys(&before);
        prop_assert!(keys.is_disjoint(&context_keys(&after)));
        prop_assert!(!keys.contains(&0));
        prop_assert_eq!(keys.len(), before.contexts.len());
    }

    #[test]
    fn every_redirect_gets_its_own_context(policy in testing::small_policy()) {
        let image = policy.compile(3).unwrap();
        let contexts: BTreeMap<u32, &abi::Context> = image.contexts.iter().map(|(key, value)| (*key, value)).collect();
        let mut named = 0;
        for (rule, filter) in image.rules.iter().zip(&image.filters) {
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

/// What the kernel program takes for granted: it checks nothing but that it stays within the array.
#[test]
fn trees_of_every_size_are_whole() {
    let mut depths = BTreeSet::new();
    for ranges in [1, 2, 63, 64, 65, 4095, 4096, 4097, 300_000] {
        // Every other address, so that each makes two ranges.
        let prefix = |bits: u32| Prefix { address: std::net::Ipv4Addr::from_bits(2 * bits + 1).into(), length: 32 };
        let v6 =
            |bits: u32| Prefix { address: Ipv6Addr::from_bits(1 << 112 | u128::from(2 * bits)).into(), length: 128 };
        let list: Arc<[Prefix]> = (0..ranges / 2).map(prefix).chain((0..ranges / 2).map(v6)).collect();
        let matches = Match { remote: Condition { only: Some(vec![list]), except: Vec::new() }, ..Match::default() };
        let filter = HostFilter { name: "one".into(), weight: 1, matches, action: HostAction::Block };
        let image = Policy { filters: vec![filter], ..Policy::default() }.compile(1).unwrap();

        let v4 = &image.policy.tree[abi::BY_V4];
        check_tree(v4, &image.nodes32, image.nodes32.len(), |node| (node.group.to_vec(), node.last.to_vec()), u32::MAX);
        let value = |value: abi::Value128| (value.hi, value.lo);
        let of = |node: &abi::Node128| (node.group.map(value).to_vec(), node.last.map(value).to_vec());
        check_tree(&image.policy.tree[abi::BY_V6], &image.nodes128, image.nodes128.len(), of, (u64::MAX, u64::MAX));
        depths.insert(v4.levels);
    }
    assert_eq!(Vec::from_iter(depths), [1, 2, 3, 4]);
}

/// Of a tree that has the nodes up to `end` to itself.
fn check_tree<N, V: Copy + Ord + std::fmt::Debug>(
    tree: &abi::Tree,
    nodes: &[N],
    end: usize,
    of: impl Fn(&N) -> (Vec<V>, Vec<V>),
    highest: V,
) {
    let levels = tree.levels as usize;
    let place = |level: usize| if level == levels { end } else { tree.level[level] as usize };
    assert_eq!(place(1) - place(0), 1, "one root");
    for level in 0..levels {
        let nodes_of = |level: usize| &nodes[place(level)..place(level + 1)];
        let mut before = None;
        for (index, node) in nodes_of(level).iter().enumerate() {
            let (group, last) = of(node);
            assert!(last.is_sorted());
            assert_eq!(group, last.iter().skip(7).step_by(8).copied().collect::<Vec<_>>());
            assert!(before < Some(last[0]), "nodes rise");
            before = last.last().copied();
            if level + 1 == levels {
                continue;
            }
            for (child, &last) in last.iter().enumerate() {
                match nodes_of(level + 1).get(abi::TREE_FAN * index + child) {
                    Some(child) => assert_eq!(of(child).1.last(), Some(&last), "the last value below"),
                    None => assert_eq!(last, highest, "no such child"),
                }
            }
        }
        assert_eq!(before, Some(highest), "all values are below a level");
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

/// The comparison is worth as much as the questions: they must meet every outcome, whatever is known of who asks.
#[test]
fn generated_questions_meet_every_outcome() {
    let mut runner = TestRunner::deterministic();
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    let mut knowledge: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..600 {
        let policy = testing::small_policy().new_tree(&mut runner).unwrap().current();
        let questions = prop::collection::vec(testing::question(&policy), 24).new_tree(&mut runner).unwrap().current();
        for question in questions {
            let decision = decide(&policy, &question);
            let by = match decision.filter {
                None => "none",
                Some(FilterRef::Host(_)) => "host",
                Some(FilterRef::Provider { .. }) => "provider",
            };
            *outcomes.entry(format!("{:?} {:?} {by}", decision.verdict, decision.reason)).or_default() += 1;
            if decision.filter.is_some_and(|filter| asks_who(&policy, filter)) {
                let known = match question.who {
                    Who::Known(_) => "Known",
                    Who::Strayed { .. } => "Strayed",
                    Who::Ambiguous { own: None, .. } => "Ambiguous",
                    Who::Ambiguous { .. } => "Both",
                };
                *knowledge
                    .entry(format!("{known} {:?} {by} {:?}", question.protocol, decision.verdict))
                    .or_default() += 1;
            }
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
    assert_eq!(Vec::from_iter(outcomes.keys()), expected);
    assert!(outcomes.values().all(|&count| count >= 20), "{outcomes:?}");
    let expected = [
        "Ambiguous Tcp host Refuse",
        "Ambiguous Tcp provider Redirect",
        "Ambiguous Tcp provider Refuse",
        "Ambiguous Udp host Refuse",
        "Ambiguous Udp provider Refuse",
        "Both Tcp host Refuse",
        "Both Tcp provider Redirect",
        "Both Tcp provider Refuse",
        "Both Udp host Refuse",
        "Both Udp provider Refuse",
        "Known Tcp host Pass",
        "Known Tcp host Refuse",
        "Known Tcp provider Redirect",
        "Known Tcp provider Refuse",
        "Known Udp host Pass",
        "Known Udp host Refuse",
        "Known Udp provider Refuse",
        "Strayed Tcp host Refuse",
        "Strayed Tcp provider Redirect",
        "Strayed Tcp provider Refuse",
        "Strayed Udp host Refuse",
        "Strayed Udp provider Refuse",
    ];
    assert_eq!(Vec::from_iter(knowledge.keys()), expected, "filters that ask who connects, and decided: {knowledge:?}");
}

fn asks_who(policy: &Policy, filter: FilterRef) -> bool {
    match filter {
        FilterRef::Host(filter) => policy.filters[filter].matches.asks_who(),
        FilterRef::Provider { provider, filter } => policy.providers[provider].filters[filter].matches.asks_who(),
    }
}
