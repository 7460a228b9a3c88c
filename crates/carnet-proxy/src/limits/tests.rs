use std::thread;

use super::{users::MOST_USERS, *};

const SECOND: Duration = Duration::from_secs(1);

fn per_second(flows: u32) -> Option<Rate> {
    Some(Rate { flows, period: SECOND, burst: flows })
}

fn flows_per_user(most: u32) -> Arc<Gate> {
    Gate::new(Limits { flows_per_user: Some(most), ..Limits::default() })
}

#[test]
fn each_user_has_places_of_their_own_and_gets_them_back() {
    let gate = flows_per_user(2);
    let mut held: Vec<_> = (0..2).map(|_| gate.admit(Some(1000)).unwrap()).collect();
    assert_eq!(gate.admit(Some(1000)).unwrap_err().limit, Limit::FlowsPerUser);
    let _others = [gate.admit(Some(1001)).unwrap(), gate.admit(None).unwrap()];
    held.pop();
    held.push(gate.admit(Some(1000)).unwrap());
    assert!(gate.admit(Some(1000)).is_err());
    assert_eq!(gate.refused(), 2);
}

#[test]
fn each_user_has_a_rate_of_their_own() {
    let gate = Gate::new(Limits { rate_per_user: per_second(2), ..Limits::default() });
    let limits = |uid, now| gate.admit_at(Some(uid), now).map(drop).map_err(|refused| refused.limit);
    assert_eq!([limits(1, SECOND), limits(1, SECOND)], [Ok(()), Ok(())]);
    assert_eq!(limits(1, SECOND), Err(Limit::RatePerUser));
    assert_eq!(limits(2, SECOND), Ok(()));
    assert_eq!(limits(1, SECOND * 2), Ok(()));
}

#[test]
fn what_has_no_place_takes_nothing_of_the_rate() {
    let limits = Limits { flows_per_user: Some(1), rate_per_user: per_second(2), ..Limits::default() };
    let gate = Gate::new(limits);
    let first = gate.admit_at(Some(1), Duration::ZERO).unwrap();
    for _ in 0..10 {
        assert_eq!(gate.admit_at(Some(1), Duration::ZERO).unwrap_err().limit, Limit::FlowsPerUser);
    }
    drop(first);
    assert!(gate.admit_at(Some(1), Duration::ZERO).is_ok());
}

#[test]
fn the_rate_of_all_says_how_long_to_wait() {
    let gate = Gate::new(Limits { rate: per_second(4), ..Limits::default() });
    assert!(!gate.asks_for_user());
    assert!((0..4).all(|_| gate.turn_at(SECOND).is_none()));
    let wait = gate.turn_at(SECOND).unwrap();
    assert_eq!(wait, Duration::from_millis(250));
    assert_eq!(gate.turn_at(SECOND + wait / 2), Some(wait / 2));
    assert_eq!(gate.turn_at(SECOND + wait), None);
    assert_eq!((gate.is_rate_news(), gate.is_rate_news()), (true, false));
}

#[test]
fn without_limits_all_may_pass() {
    let gate = Gate::new(Limits::default());
    let permits: Vec<_> = (0..1000).map(|_| gate.admit(Some(7)).unwrap()).collect();
    assert_eq!((gate.turn(), gate.users().count(), permits.len()), (None, 0, 1000));
}

#[test]
fn a_flood_is_said_once_and_counted() {
    let gate = flows_per_user(0);
    let say = |now| gate.admit_at(Some(1), now).unwrap_err().say;
    assert_eq!(say(Duration::ZERO), Some(1));
    assert!((0..500).all(|_| say(SECOND).is_none()));
    assert_eq!(say(SECOND * 10), Some(501));
    assert_eq!(gate.admit_at(Some(2), SECOND * 10).unwrap_err().say, Some(1), "another user is another matter");
}

#[test]
fn users_who_have_gone_are_forgotten() {
    let gate = Gate::new(Limits { flows_per_user: Some(1), rate_per_user: per_second(1), ..Limits::default() });
    let held = gate.admit_at(Some(u32::MAX), Duration::ZERO).unwrap();
    for uid in 0..200_000 {
        drop(gate.admit_at(Some(uid), SECOND * uid));
    }
    assert!(gate.users().count() <= 512, "{}", gate.users().count());
    assert!(gate.admit_at(Some(u32::MAX), SECOND * 200_000).is_err(), "who has flows is known");
    drop(held);
}

#[test]
fn whatever_uids_come_the_memory_is_bounded_and_nobody_gets_more() {
    let gate = flows_per_user(1);
    let held: Vec<_> = (0..MOST_USERS as u32 + 1000).map(|uid| gate.admit(Some(uid))).collect();
    assert!(gate.users().count() <= MOST_USERS + 1);
    let admitted = held.iter().filter(|permit| permit.is_ok()).count();
    assert_eq!(admitted, MOST_USERS + 1, "those beyond share one place");
    drop(held);
    assert!(gate.admit(Some(u32::MAX)).is_ok());
}

#[test]
fn threads_keep_one_count() {
    let gate = flows_per_user(100);
    let admitted: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..100).filter_map(|_| gate.admit(Some(1)).ok()).collect::<Vec<_>>()))
            .collect();
        let permits: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        permits.iter().map(Vec::len).sum()
    });
    assert_eq!(admitted, 100);
    assert_eq!((0..200).filter_map(|_| gate.admit(Some(1)).ok()).collect::<Vec<_>>().len(), 100);
}
