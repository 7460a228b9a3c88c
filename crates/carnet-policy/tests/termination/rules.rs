//! The rules of the decision, and what they would be without one of them.

use carnet_policy::{Decision, Policy, Question, Reason, Verdict, decide};

/// The rules in force. All but the first are broken on purpose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rules {
    All,
    /// A direct listener may be dialled from any rank.
    DirectFromAnywhere,
    /// An explicit proxy's forgotten connections are redirected.
    NothingTerminal,
    /// Both of the above.
    NoneOnDirect,
    /// Nobody knows whose a service's connection is.
    NoOwners,
}

/// The reference decision under `rules`.
pub fn decide_by(rules: Rules, policy: &mut Policy, question: Question) -> Decision {
    let question = match rules {
        Rules::NoOwners => Question { dialer: None, ..question },
        _ => question,
    };
    let decision = decide(policy, &question);
    match decision.reason {
        Reason::OwnListener
            if matches!(rules, Rules::DirectFromAnywhere | Rules::NoneOnDirect)
                && question.dialer != question.listener =>
        {
            Decision { verdict: Verdict::Direct, reason: Reason::Rule, ..decision }
        }
        Reason::Terminal if matches!(rules, Rules::NothingTerminal | Rules::NoneOnDirect) => {
            let dialer = question.dialer.expect("only a service's connection is terminal");
            policy.providers[dialer].direct = false;
            let decision = decide(policy, &question);
            policy.providers[dialer].direct = true;
            decision
        }
        _ => decision,
    }
}
