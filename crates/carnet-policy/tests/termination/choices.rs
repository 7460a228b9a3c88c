//! Every run of a function that makes choices.

/// The choices of one run. A run repeats those of the one before it up to the last that has another option left.
#[derive(Default)]
pub struct Choices {
    made: Vec<Choice>,
    next: usize,
}

struct Choice {
    taken: usize,
    options: usize,
}

impl Choices {
    /// Runs `body` once for every sequence of choices it can make, and returns how many there are.
    pub fn exhaust(mut body: impl FnMut(&mut Self)) -> usize {
        let mut choices = Self::default();
        for runs in 1.. {
            choices.next = 0;
            body(&mut choices);
            assert_eq!(choices.next, choices.made.len(), "a run must repeat the choices of the one before it");
            if !choices.advance() {
                return runs;
            }
        }
        unreachable!("the loop has no end")
    }

    /// One of `options` numbers from 0.
    pub fn choose(&mut self, options: usize) -> usize {
        if self.next == self.made.len() {
            self.made.push(Choice { taken: 0, options });
        }
        let choice = &self.made[self.next];
        assert_eq!(choice.options, options, "a run must repeat the choices of the one before it");
        self.next += 1;
        choice.taken
    }

    /// One of `options`.
    pub fn pick<T: Copy>(&mut self, options: &[T]) -> T {
        options[self.choose(options.len())]
    }

    fn advance(&mut self) -> bool {
        while let Some(last) = self.made.last_mut() {
            last.taken += 1;
            if last.taken < last.options {
                return true;
            }
            self.made.pop();
        }
        false
    }
}

#[test]
fn every_sequence_comes_once() {
    let mut seen = Vec::new();
    let runs = Choices::exhaust(|choices| {
        let first = choices.choose(3);
        let second = if first == 1 { choices.pick(&['a', 'b']) } else { '-' };
        seen.push((first, second));
    });
    assert_eq!(seen, [(0, '-'), (1, 'a'), (1, 'b'), (2, '-')]);
    assert_eq!(runs, 4);
}
