//! What the program is called with: by people, by Cargo's test runner, and by itself.

/// What is to be done.
pub(crate) enum Arguments {
    /// Play what has all these words in its name.
    Run(Vec<String>),
    /// Be the second process on this broker.
    Child(String),
    /// Test runners ask for a list; there is nothing that they could pick from.
    List,
}

impl Arguments {
    /// Understands words as filters and passes over the flags of Rust's own test harness.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Self {
        const WITH_VALUE: &[&str] = &["--test-threads", "--format", "--color", "--logfile", "--skip", "-Z"];
        let arguments: Vec<String> = arguments.collect();
        if let [word, url] = &arguments[..]
            && word == "child"
        {
            return Self::Child(url.clone());
        }
        if arguments.iter().any(|argument| argument == "--list") {
            return Self::List;
        }
        let mut words = Vec::new();
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            if WITH_VALUE.contains(&argument.as_str()) {
                rest.next();
            } else if !argument.starts_with('-') {
                words.push(argument);
            }
        }
        Self::Run(words)
    }

    /// Whether a scenario, named with its subject, is to be played.
    pub(crate) fn want(&self, name: &str) -> bool {
        matches!(self, Self::Run(words) if words.iter().all(|word| name.contains(word.as_str())))
    }
}
