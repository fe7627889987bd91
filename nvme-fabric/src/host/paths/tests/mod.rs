//! Steps of the paths against scripted controllers: access states, refusals, aborts, keep alive.

mod script;

use std::time::Duration;

use block_io::{BufferPool, Completion, IoError, Request, RequestId, Timestamp};

use self::script::Script;
use super::*;
use crate::spec::identify::optional;
use crate::spec::log_page::AccessState;
use crate::spec::nqn::{HostId, Nqn};
use crate::spec::status::Status;

struct Bench {
    pool: BufferPool,
    paths: Paths,
    scripts: Vec<Script>,
    now: Timestamp,
    queue: usize,
}

impl Bench {
    fn new(count: usize, change: impl Fn(usize, &mut Script)) -> Self {
        Self::with(count, Settings::default(), 1, change)
    }

    fn with(
        count: usize,
        settings: Settings,
        io_queues: u16,
        change: impl Fn(usize, &mut Script),
    ) -> Self {
        let pool = BufferPool::heap();
        let nqn = |name: &str| Nqn::new(name).expect("well formed");
        let options = |number: usize| {
            let host = nqn("nqn.2014-08.com.example:host");
            let subsystem = nqn("nqn.2014-08.com.example:volume");
            let mut options =
                HostOptions::new(format!("path {number}"), subsystem, host, HostId([7; 16]));
            options.io_queues = io_queues;
            options
        };
        let options = (0..count).map(options).collect();
        let paths =
            Paths::new(&pool, options, 1, settings, 1, Timestamp(0)).expect("options are right");
        let scripts = (0..count).map(|number| {
            let mut script = Script::new(&pool, number as u16 + 1);
            change(number, &mut script);
            script
        });
        let scripts = scripts.collect();
        let mut bench = Self { pool, paths, scripts, now: Timestamp(0), queue: 0 };
        bench.settle();
        bench.queue = bench.paths.open_queue(64).expect("a path is up");
        bench
    }

    /// Until nothing moves at this time.
    fn settle(&mut self) {
        loop {
            let mut progress = self.paths.tick(self.now);
            while let Some((path, queue)) = self.paths.next_stream_wanted() {
                self.scripts[path].open(queue);
                self.paths.stream_established(path, queue);
                progress = true;
            }
            for (path, script) in self.scripts.iter_mut().enumerate() {
                for queue in 0..8 {
                    let Some(connection) = self.paths.connection(path, queue) else { continue };
                    progress |= script.exchange(queue, connection);
                    if connection.wants_close() {
                        self.paths.stream_closed(path, queue);
                        progress = true;
                    }
                }
            }
            if !progress {
                return;
            }
        }
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.settle();
        while let Some(next) = self.paths.next_deadline().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    fn submit(&mut self, id: u64) {
        let read = Request::read(RequestId(id), 0, self.pool.allocate(512));
        self.paths.submit(self.queue, read).expect("room");
    }

    fn completions(&mut self) -> Vec<Result<(), IoError>> {
        let mut completions: Vec<Completion> = Vec::new();
        self.settle();
        self.paths.take_completions(self.queue, &mut completions);
        completions.into_iter().map(|completion| completion.result).collect()
    }

    /// How many commands each path has had since the last call.
    fn shares(&mut self) -> Vec<usize> {
        self.scripts
            .iter_mut()
            .map(|script| std::mem::take(&mut script.io_commands).len())
            .collect()
    }

    /// The shares of a number of reads that all succeed.
    fn shares_of(&mut self, count: u64) -> Vec<usize> {
        for id in 0..count {
            self.submit(id);
        }
        assert_eq!(self.completions(), vec![Ok(()); count as usize]);
        self.shares()
    }
}

#[test]
fn commands_go_where_access_is_best_and_follow_its_changes() {
    use AccessState::{Inaccessible, NonOptimized, Optimized, PersistentLoss};
    let mut bench = Bench::new(3, |number, script| {
        script.access = [Optimized, NonOptimized, Optimized][number];
    });
    assert_eq!(bench.shares_of(12), [6, 0, 6]);
    bench.scripts[0].change_access(Inaccessible);
    bench.settle();
    assert_eq!(bench.shares_of(12), [0, 0, 12]);
    bench.scripts[2].change_access(PersistentLoss);
    bench.settle();
    assert_eq!(bench.shares_of(12), [0, 12, 0], "better than none");
    bench.scripts[0].change_access(Optimized);
    bench.settle();
    assert_eq!(bench.shares_of(12), [12, 0, 0], "and back");
    assert_eq!(bench.paths.status().paths[2].access, Some(PersistentLoss));
    assert_eq!(bench.scripts[0].access_logs_read, 3, "at bring-up and for each event");
}

#[test]
fn without_any_accessible_path_requests_wait() {
    let mut bench = Bench::new(1, |_, _| {});
    bench.scripts[0].change_access(AccessState::Inaccessible);
    bench.settle();
    bench.submit(1);
    bench.run_for(Duration::from_secs(20));
    assert_eq!(bench.completions(), []);
    assert_eq!(bench.shares(), [0]);
    bench.scripts[0].change_access(AccessState::NonOptimized);
    assert_eq!(bench.completions(), [Ok(())]);
}

#[test]
fn a_refusal_for_the_paths_sake_is_taken_elsewhere_before_the_event_comes() {
    for (status, access) in [
        (Status::ANA_INACCESSIBLE, AccessState::Inaccessible),
        (Status::ANA_PERSISTENT_LOSS, AccessState::PersistentLoss),
        (Status::ANA_TRANSITION, AccessState::Change),
    ] {
        let mut bench = Bench::new(2, |number, script| {
            script.access = [AccessState::Optimized, AccessState::NonOptimized][number];
        });
        bench.scripts[0].io_status = Some(status);
        bench.scripts[0].access = access;
        assert_eq!(bench.shares_of(4), [4, 4], "{status}: each is tried once, then elsewhere");
        assert_eq!(bench.shares_of(4), [0, 4]);
        assert_eq!(bench.paths.status().paths[0].access, Some(access));
        assert!(bench.scripts[0].access_logs_read > 1, "the log is read again");
    }
}

#[test]
fn a_path_that_always_refuses_is_tried_a_bounded_number_of_times() {
    let mut bench = Bench::new(1, |_, script| script.io_status = Some(Status::INTERNAL_PATH_ERROR));
    bench.submit(1);
    bench.run_for(Duration::from_secs(50));
    assert_eq!(bench.completions(), []);
    bench.run_for(Duration::from_secs(50));
    assert_eq!(bench.completions(), [Err(IoError::Other(113))]);
    assert_eq!(bench.shares(), [64]);
    bench.scripts[0].io_status = Some(Status::INTERNAL_PATH_ERROR.do_not_retry());
    bench.submit(2);
    assert_eq!(bench.completions(), [Err(IoError::Other(113))], "it was answered");
    assert_eq!(bench.shares(), [1], "told not to");
}

#[test]
fn a_change_of_access_that_does_not_end_resets_the_path() {
    let mut bench = Bench::new(1, |_, script| script.access = AccessState::Optimized);
    bench.scripts[0].change_access(AccessState::Change);
    bench.run_for(Duration::from_secs(19));
    assert_eq!(bench.paths.losses(), 0);
    bench.scripts[0].access = AccessState::Optimized;
    bench.run_for(Duration::from_secs(1));
    assert_eq!(bench.paths.losses(), 1, "twice ANATT");
    let reason = bench.paths.status().paths[0].reason.clone().expect("there is one");
    assert!(reason.contains("ANATT"), "{reason}");
    bench.run_for(Duration::from_secs(1));
    assert_eq!(bench.shares_of(1), [1]);
}

#[test]
fn a_late_command_is_aborted_by_its_name_and_tried_again() {
    let mut bench = Bench::new(1, |_, script| script.io_status = None);
    bench.submit(1);
    bench.run_for(Duration::from_secs(29));
    assert_eq!(bench.scripts[0].aborts, []);
    let name = crate::spec::command::command_id(&bench.scripts[0].pending[0].1);
    bench.run_for(Duration::from_secs(1));
    assert_eq!(bench.scripts[0].aborts, [(1, name)]);
    assert_eq!(bench.shares(), [2], "tried again");
    assert_eq!(bench.paths.losses(), 0);
    bench.scripts[0].io_status = Some(Status::SUCCESS);
    // The second one is aborted, too, and the third comes after a pause.
    bench.run_for(Duration::from_secs(31));
    assert_eq!(bench.completions(), [Ok(())]);
    assert_eq!(bench.paths.losses(), 0);
}

#[test]
fn an_abort_that_does_not_work_resets_the_association_after_its_time() {
    let mut bench = Bench::new(1, |_, script| {
        script.io_status = None;
        script.aborts_work = false;
    });
    bench.submit(1);
    bench.run_for(Duration::from_secs(34));
    assert_eq!((bench.scripts[0].aborts.len(), bench.paths.losses()), (1, 0));
    bench.run_for(Duration::from_secs(1));
    assert_eq!((bench.scripts[0].aborts.len(), bench.paths.losses()), (1, 1));
}

#[test]
fn traffic_keeps_a_controller_alive_that_counts_it_and_no_other() {
    for (attributes, busy, idle) in
        [(0, 8..=8, 8..=8), (optional::ATTRIBUTE_TRAFFIC_KEEP_ALIVE, 0..=0, 14..=16)]
    {
        let mut bench = Bench::new(1, |_, script| script.identify.attributes = attributes);
        bench.run_for(Duration::from_millis(2_600));
        bench.scripts[0].keep_alives = 0;
        for round in 0..20 {
            bench.submit(round);
            bench.run_for(Duration::from_secs(1));
        }
        assert!(busy.contains(&bench.scripts[0].keep_alives), "{}", bench.scripts[0].keep_alives);
        bench.scripts[0].keep_alives = 0;
        bench.run_for(Duration::from_secs(20));
        assert!(idle.contains(&bench.scripts[0].keep_alives), "{}", bench.scripts[0].keep_alives);
        assert_eq!(bench.paths.losses(), 0);
    }
}

#[test]
fn an_answer_to_an_old_command_keeps_nobody_alive() {
    let mut bench = Bench::new(1, |_, script| {
        script.identify.attributes = optional::ATTRIBUTE_TRAFFIC_KEEP_ALIVE;
        script.io_status = None;
    });
    for id in 0..20 {
        bench.submit(id);
    }
    bench.run_for(Duration::from_millis(2_600));
    bench.scripts[0].keep_alives = 0;
    for _ in 0..20 {
        bench.run_for(Duration::from_secs(1));
        let (queue, entry) = bench.scripts[0].pending.remove(0);
        bench.scripts[0].answer_io(queue, &entry, Status::SUCCESS);
    }
    assert!(bench.scripts[0].keep_alives >= 14, "{}", bench.scripts[0].keep_alives);
}

#[test]
fn a_reconnected_path_may_have_fewer_queues_and_takes_everybodys_requests() {
    let mut bench = Bench::with(1, Settings::default(), 4, |_, script| script.io_queues = 4);
    let queues: Vec<_> = (0..4).map(|_| bench.paths.open_queue(8).expect("any number")).collect();
    let read = |bench: &mut Bench| {
        for queue in &queues {
            let read = Request::read(RequestId(1), 0, bench.pool.allocate(512));
            bench.paths.submit(*queue, read).expect("room");
        }
        bench.settle();
        for queue in &queues {
            let mut completions = Vec::new();
            bench.paths.take_completions(*queue, &mut completions);
            assert_eq!(completions.len(), 1, "its own");
            assert_eq!(completions[0].result, Ok(()));
        }
        let mut used = std::mem::take(&mut bench.scripts[0].io_commands);
        used.sort_unstable();
        used
    };
    assert_eq!(read(&mut bench), [1, 2, 3, 4]);
    bench.scripts[0].io_queues = 2;
    bench.paths.reset_path(0);
    bench.run_for(Duration::from_secs(1));
    assert_eq!(bench.paths.status().paths[0].io_queues, 2);
    assert_eq!(read(&mut bench), [1, 1, 2, 2]);
}
