//! An image read as the kernel program reads it.

use carnet_abi as abi;

use crate::Image;

/// `asked` with the answer that `image` gives, by the rules of `carnet_image.h`. Panics where the image is broken.
pub fn evaluate(image: &Image, asked: &abi::Asked) -> abi::Asked {
    let question = asked.question;
    let policy = &image.policy;
    let answer = |verdict: u32, reason: u32, provider: u32, rule: u32| abi::Asked {
        question: abi::Question { verdict: verdict as u16, reason: reason as u16, provider, rule, ..question },
        ..*asked
    };
    let provider_at = |index: u32| (index != abi::NONE).then(|| &policy.provider[index as usize]);
    let dialer = provider_at(question.dialer);
    let floor = dialer.map_or(question.floor, |dialer| question.floor.max(dialer.rank as i32));
    let is_full = asked.depth >= abi::MAX_HOPS as u32;

    if let Some(listener) = provider_at(question.listener) {
        let refuse = |reason| answer(abi::VERDICT_REFUSE, reason, question.listener, abi::NONE);
        return if question.dialer == question.listener {
            refuse(abi::REASON_OWN_LISTENER)
        } else if listener.flags & abi::PROVIDER_DIRECT == 0 {
            refuse(abi::REASON_NOT_DIRECT)
        } else if listener.rank as i32 <= floor {
            refuse(abi::REASON_OWN_LISTENER)
        } else if is_full {
            refuse(abi::REASON_TOO_DEEP)
        } else {
            answer(abi::VERDICT_DIRECT, abi::REASON_RULE, question.listener, abi::NONE)
        };
    }

    let matched = matched(image, asked);
    let first_in = |rules: std::ops::Range<u32>| rules.into_iter().find(|&rule| has(&matched, rule));
    if let Some(index) = first_in(0..policy.host_rules) {
        return match image.rules[index as usize].action {
            abi::ACTION_PERMIT => answer(abi::VERDICT_PASS, abi::REASON_RULE, abi::NONE, index),
            abi::ACTION_BLOCK => answer(abi::VERDICT_REFUSE, abi::REASON_BLOCKED, abi::NONE, index),
            action => panic!("rule {index} of the host has action {action}"),
        };
    }
    let default = |reason| match policy.default_action {
        abi::ACTION_PERMIT => answer(abi::VERDICT_PASS, reason, abi::NONE, abi::NONE),
        _ => answer(abi::VERDICT_REFUSE, abi::REASON_BLOCKED, abi::NONE, abi::NONE),
    };
    if dialer.is_some_and(|dialer| dialer.flags & abi::PROVIDER_DIRECT != 0) && question.has_record == 0 {
        return default(abi::REASON_TERMINAL);
    }
    for at in 0..policy.providers {
        let provider = &policy.provider[at as usize];
        if provider.rank as i32 <= floor {
            continue;
        }
        let Some(index) = first_in(provider.first_rule..provider.end_rule) else { continue };
        let is_dead = asked.dead[at as usize / 64] >> (at % 64) & 1 == 1;
        match image.rules[index as usize].action {
            abi::ACTION_BLOCK => return answer(abi::VERDICT_REFUSE, abi::REASON_BLOCKED, at, index),
            abi::ACTION_SKIP => {}
            abi::ACTION_REDIRECT if is_dead && provider.flags & abi::PROVIDER_OPEN != 0 => {}
            abi::ACTION_REDIRECT if is_dead => return answer(abi::VERDICT_REFUSE, abi::REASON_DEAD, at, index),
            abi::ACTION_REDIRECT if is_full => return answer(abi::VERDICT_REFUSE, abi::REASON_TOO_DEEP, at, index),
            abi::ACTION_REDIRECT => return answer(abi::VERDICT_REDIRECT, abi::REASON_RULE, at, index),
            action => panic!("rule {index} of a provider has action {action}"),
        }
    }
    default(abi::REASON_DEFAULT)
}

type Words = [u64; abi::CLASS_WORDS];

/// The rules that match.
fn matched(image: &Image, asked: &abi::Asked) -> Words {
    let Image { policy, nodes32, nodes128, values, .. } = image;
    let question = &asked.question;
    let class = |class: u16| {
        let abi::Class { words, word } = &image.classes[usize::from(class)];
        assert!((0..abi::CLASS_WORDS).all(|at| (words >> at & 1 == 1) == (word[at] != 0)), "the summary is right");
        word
    };
    let by32 = |dimension: usize, value: u32| match policy.dimensions >> dimension & 1 {
        0 => class(abi::CLASS_EVERYTHING),
        _ => class(find(&policy.tree[dimension], nodes32, |node| (&node.last, &node.class_of), |last| last < value)),
    };
    let find128 = |dimension: usize, hi: u64, lo: u64| {
        let is_before = |last: abi::Value128| (last.hi, last.lo) < (hi, lo);
        find(&policy.tree[dimension], nodes128, |node| (&node.last, &node.class_of), is_before)
    };
    let by128 = |dimension: usize, hi: u64, lo: u64| match policy.dimensions >> dimension & 1 {
        0 => class(abi::CLASS_EVERYTHING),
        _ => class(find128(dimension, hi, lo)),
    };
    // One value or, the deepest first, those of a line.
    let by_value = |dimension: usize, line: &[(u32, u64)]| {
        if policy.dimensions >> dimension & 1 == 0 {
            return class(abi::CLASS_EVERYTHING);
        }
        let named = line.iter().find_map(|&(hi, lo)| {
            let key = abi::ValueKey { lo, hi, dimension: dimension as u16, slot: 0 };
            values.iter().find(|(named, _)| *named == key)
        });
        class(named.map_or(policy.otherwise[dimension - abi::BY_UID], |(_, class)| *class))
    };
    let by_id = |dimension: usize, id: u32| match policy.tree[dimension].levels {
        0 => by_value(dimension, &[(0, id.into())]),
        _ => by32(dimension, id),
    };
    let who = |origin: &abi::Origin, line: &[u64; abi::LINE]| {
        let classes = [
            by_id(abi::BY_UID, origin.uid),
            by_id(abi::BY_GID, origin.gid),
            by_value(abi::BY_EXE, &[(origin.exe_dev, origin.exe_ino)]),
            by_value(abi::BY_CGROUP, &line.map(|id| (0, id)).into_iter().rev().collect::<Vec<_>>()),
            by_value(abi::BY_NETNS, &[(0, origin.netns_cookie)]),
        ];
        each(|at| classes.iter().fold(u64::MAX, |word, class| word & class[at]))
    };

    let own = who(&asked.origin[0], &asked.line[0]);
    let lets_through = class(policy.lets_through as u16);
    let knowledge = u32::from(question.knowledge);
    let if_so = |bit: u32, words: Words| if knowledge & bit == 0 { [0; _] } else { words };
    let strayed = if_so(abi::STRAYED, who(&asked.origin[1], &asked.line[1]));
    let ambiguous = if_so(abi::AMBIGUOUS, *class(policy.stops as u16));
    let who = match knowledge {
        abi::KNOWN => own,
        _ => each(|at| (own[at] | strayed[at]) & !lets_through[at] | ambiguous[at]),
    };

    let ip = u128::from_be_bytes(question.remote.ip);
    let remote = match ip >> 32 {
        0xffff => by32(abi::BY_V4, ip as u32),
        _ => by128(abi::BY_V6, (ip >> 64) as u64, ip as u64),
    };
    let port = by32(abi::BY_PORT, u32::from(question.protocol) << 16 | u32::from(question.remote.port));
    let via = match question.dialer {
        abi::NONE => policy.via[abi::MAX_PROVIDERS],
        dialer => policy.via[dialer as usize],
    };
    let via = class(via);
    each(|at| remote[at] & port[at] & via[at] & who[at])
}

/// The class of what `is_before` tells to be after a value.
fn find<N, V: Copy>(
    tree: &abi::Tree,
    nodes: &[N],
    of: impl Fn(&N) -> (&[V; abi::TREE_FAN], &[u16; abi::TREE_FAN]),
    is_before: impl Fn(V) -> bool,
) -> u16 {
    let mut place = 0;
    let mut class = abi::CLASS_NOTHING;
    for &level in &tree.level[..tree.levels as usize] {
        let (last, class_of) = of(&nodes[level as usize + place]);
        let child = last.iter().filter(|&&last| is_before(last)).count();
        place = place * abi::TREE_FAN + child;
        class = class_of[child];
    }
    class
}

fn each(word: impl Fn(usize) -> u64) -> Words {
    std::array::from_fn(word)
}

fn has(words: &Words, rule: u32) -> bool {
    words[rule as usize / 64] >> (rule % 64) & 1 == 1
}
