//! Token counts of one call, made consistent, and split into classes that are priced apart.

/// Token counts as a span reports them; none is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// In; most emitters include what the provider's cache held.
    pub prompt: Option<i64>,
    /// Out; most emitters include reasoning.
    pub completion: Option<i64>,
    /// In all.
    pub total: Option<i64>,
    /// Of the prompt, read from the provider's cache.
    pub cache_read: Option<i64>,
    /// Of the prompt, written to it.
    pub cache_write: Option<i64>,
    /// Of the prompt, sound.
    pub audio_input: Option<i64>,
    /// Of the answer, not shown.
    pub reasoning: Option<i64>,
    /// Of the answer, sound.
    pub audio_output: Option<i64>,
}

/// Token counts by price. No token is in two classes, and together they are the total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Classes {
    /// Prompt, none of the following.
    pub fresh: i64,
    /// Prompt, read from the provider's cache.
    pub cached: i64,
    /// Prompt, written to it.
    pub cache_write: i64,
    /// Prompt, sound.
    pub audio_input: i64,
    /// Answer, none of the following.
    pub text: i64,
    /// Answer, not shown.
    pub reasoning: i64,
    /// Answer, sound.
    pub audio_output: i64,
}

impl Usage {
    /// Whether the call said how many tokens it took.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.prompt.is_some() || self.completion.is_some() || self.total.is_some()
    }

    /// Prompt, completion and total, none less than its parts: what a row sums up.
    ///
    /// A missing count is derived where the other two say it. Cached tokens that cannot be part of the prompt (there are more
    /// of them, or only with them the total comes out) are added to it: that is how Anthropic's own API counts.
    #[must_use]
    pub fn sums(&self) -> (i64, i64, i64) {
        let known = |count: Option<i64>| count.unwrap_or(0).max(0);
        let rest = |part: i64| known(self.total).saturating_sub(part).max(0);
        let (prompt, completion) = match (self.prompt, self.completion) {
            (Some(_), None) => (known(self.prompt), rest(known(self.prompt))),
            (None, Some(_)) => (rest(known(self.completion)), known(self.completion)),
            _ => (known(self.prompt), known(self.completion)),
        };
        let cache = known(self.cache_read).saturating_add(known(self.cache_write));
        let with_cache = prompt.saturating_add(cache);
        let is_beside = cache > prompt || (cache > 0 && self.total == Some(with_cache.saturating_add(completion)));
        let prompt = if is_beside { with_cache } else { prompt };
        (prompt, completion, known(self.total).max(prompt.saturating_add(completion)))
    }

    /// Whether [`Usage::sums`] had to add cached tokens to the prompt.
    #[must_use]
    pub fn cache_is_beside_prompt(&self) -> bool {
        let without = Self { cache_read: None, cache_write: None, ..*self };
        self.sums().0 != without.sums().0
    }

    /// The counts by price; none where it is not known which tokens went in and which came out.
    #[must_use]
    pub fn classes(&self) -> Option<Classes> {
        let (prompt, _, total) = self.sums();
        if self.prompt.is_none() && self.completion.is_none() && prompt == 0 {
            return None;
        }
        // What the total holds beyond both is reasoning that the completion leaves out (Gemini): it is priced as output.
        let answer = total.saturating_sub(prompt);
        let mut left = prompt;
        let [cached, cache_write, audio_input] =
            [self.cache_read, self.cache_write, self.audio_input].map(|count| take(&mut left, count));
        let fresh = left;
        let mut left = answer;
        let [reasoning, audio_output] = [self.reasoning, self.audio_output].map(|count| take(&mut left, count));
        Some(Classes { fresh, cached, cache_write, audio_input, text: left, reasoning, audio_output })
    }
}

/// Takes up to `count` off `left`: a part that claims more than the whole gets the whole.
fn take(left: &mut i64, count: Option<i64>) -> i64 {
    let taken = count.unwrap_or(0).clamp(0, *left);
    *left -= taken;
    taken
}
