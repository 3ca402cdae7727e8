//! Defects that tests plant in the core on purpose, to see that the simulation
//! finds them: a check that never fails proves nothing.
//!
//! Only a build with the feature `sabotage` can plant one; in every other build
//! [`Defect::is_planted`] is the constant `false`, and the branch is gone.

/// A way in which the core could break a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A cursor that stands one offset before the live one is taken to have met it.
    SkipAtJoin,
    /// The last record of a full frame is in the next frame too.
    RepeatAfterFullFrame,
    /// Whoever reads history is asked for keys only, not whose the record is.
    ForgetTenantInHistory,
    /// The record that found no room in a frame is passed over.
    PassUnsent,
    /// A live feed whose position moved without records does not say so.
    ForgetProgress,
    /// A live feed is told of positions that have not been served yet.
    ProgressTooEarly,
    /// A gap is told to end one offset after the oldest record there is.
    GapTooLong,
    /// A cursor beyond the end of a log that became shorter goes back in silence.
    SilentTruncation,
    /// Whoever joins a feed moves the others' position to its own.
    JoinMovesFeed,
    /// History that begins after the cursor is taken for what stands at it.
    ReadAfterHole,
    /// A partition that was added is read from its end.
    NewPartitionAtEnd,
    /// A frame of another's is sent though it begins above the client's position.
    FrameOfOthersAhead,
    /// Followers of a channel that was taken out are not told.
    KeepRemovedChannel,
    /// Who stands above the end of a partition that has a leader at last is not
    /// told.
    LocateInSilence,
    /// A reader that brings nothing though there is more is waited for.
    TrustReaders,
    /// A feed whose frame was full counts as told of what came after it.
    TellPastFullFrame,
    /// The leader epoch of a position is not held against Kafka.
    TrustEpochs,
    /// What was known of a log that was cut off is told of what came after.
    KeepReached,
}

impl Defect {
    /// Every defect.
    pub const ALL: [Self; 18] = [
        Self::SkipAtJoin,
        Self::RepeatAfterFullFrame,
        Self::ForgetTenantInHistory,
        Self::PassUnsent,
        Self::ForgetProgress,
        Self::ProgressTooEarly,
        Self::GapTooLong,
        Self::SilentTruncation,
        Self::JoinMovesFeed,
        Self::ReadAfterHole,
        Self::NewPartitionAtEnd,
        Self::FrameOfOthersAhead,
        Self::KeepRemovedChannel,
        Self::LocateInSilence,
        Self::TrustReaders,
        Self::TellPastFullFrame,
        Self::TrustEpochs,
        Self::KeepReached,
    ];

    /// Says whether this defect is planted in the calling thread.
    #[cfg(feature = "sabotage")]
    pub fn is_planted(self) -> bool {
        PLANTED.get() == Some(self)
    }

    /// Says whether this defect is planted: never, in this build.
    #[cfg(not(feature = "sabotage"))]
    #[inline(always)]
    pub const fn is_planted(self) -> bool {
        false
    }

    /// Plants this defect in the calling thread, in place of any other.
    #[cfg(feature = "sabotage")]
    pub fn plant(self) {
        PLANTED.set(Some(self));
    }
}

#[cfg(feature = "sabotage")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Defect>> = const { std::cell::Cell::new(None) };
}
