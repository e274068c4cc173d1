//! The releases that updates are measured on: real ones, with their versions pinned.

/// A package of which some consecutive releases are fetched.
#[derive(Debug)]
pub struct Series {
    /// What it is called here.
    pub name: &'static str,
    /// Who brings it.
    pub source: Source,
    /// What the client calls it.
    pub package: &'static str,
    /// Its releases, oldest first: the last is the new one, the one before is N-1. Up to eight: of so many in a row
    /// default retention keeps one whole (`release_store::gc::DEFAULT_WHOLE_EVERY`), so that the store is as it is in the long run.
    pub versions: &'static [&'static str],
    /// What it is mostly made of.
    pub kind: Kind,
    /// What is allowed from N-1, as a part of what the best peer needs.
    pub near_goal: f64,
}

/// An ordinary client of a package registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `npm pack`.
    Npm,
    /// `pip download`.
    Pip,
}

/// What a release is mostly made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Native executables.
    Executables,
    /// Scripts, styles, text, some of everything.
    Mixed,
}

impl Kind {
    /// What is allowed of the store, as a part of borg's.
    pub fn store_goal(self) -> f64 {
        match self {
            Self::Executables => 0.5,
            Self::Mixed => 0.7,
        }
    }

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Executables => "executables",
            Self::Mixed => "text and mixed",
        }
    }
}

/// All of them.
pub const ALL: &[Series] = &[
    Series {
        name: "esbuild",
        source: Source::Npm,
        package: "@esbuild/linux-x64",
        versions: &["0.27.3", "0.27.4", "0.27.5", "0.27.6", "0.27.7", "0.28.0", "0.28.1", "0.28.2"],
        kind: Kind::Executables,
        near_goal: 0.60,
    },
    Series {
        name: "ruff",
        source: Source::Pip,
        package: "ruff",
        versions: &["0.11.8", "0.11.9", "0.11.10", "0.11.11", "0.11.12", "0.11.13", "0.12.0", "0.12.1"],
        kind: Kind::Executables,
        near_goal: 0.75,
    },
    Series {
        name: "playwright",
        source: Source::Pip,
        package: "playwright",
        versions: &["1.63.0", "1.64.0", "1.65.0", "1.65.1"],
        kind: Kind::Executables,
        near_goal: 0.85,
    },
    Series {
        name: "jupyterlab",
        source: Source::Pip,
        package: "jupyterlab",
        versions: &["4.6.0", "4.6.1", "4.6.2", "4.6.3", "4.6.4", "4.6.5", "4.6.6"],
        kind: Kind::Mixed,
        near_goal: 0.95,
    },
    Series {
        name: "typescript",
        source: Source::Npm,
        package: "typescript",
        versions: &["5.6.2", "5.6.3", "5.7.2", "5.7.3", "5.8.2", "5.8.3", "5.9.2", "5.9.3"],
        kind: Kind::Mixed,
        near_goal: 0.95,
    },
];

/// What is allowed from N-3, as a part of what the best peer needs.
pub const FAR_GOAL: f64 = 0.95;
