//! When the kernel measures how long our programs run, and for how long it has.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ring::OwnedTask;
use crate::kernel::cost::{CostError, Measuring};

/// So long of every period runs are measured: the some 40 ns that it costs each of them are a thirtieth of that on average.
const SAMPLE: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_secs(30);

/// The kernel measures, now and then or always, until this is dropped.
pub struct Measurement {
    time: Arc<Time>,
    _kept: Kept,
}

enum Kept {
    Always { _measuring: Measuring },
    Sampled { _task: OwnedTask },
}

/// For how long it has been measured.
#[derive(Default)]
struct Time(Mutex<Stretches>);

#[derive(Default)]
struct Stretches {
    /// All that have ended.
    ended: Duration,
    /// When the one began that lasts.
    since: Option<Instant>,
}

/// One in which it is measured, until this is dropped.
struct Stretch<'a>(&'a Time);

impl Measurement {
    /// Every run is measured.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn always() -> Result<Self, CostError> {
        let measuring = Measuring::start()?;
        let time = Time::default();
        time.lock().since = Some(Instant::now());
        Ok(Self {
            time: Arc::new(time),
            _kept: Kept::Always {
                _measuring: measuring,
            },
        })
    }

    /// The runs of one second out of every 30 are measured, from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn sampled() -> Result<Self, CostError> {
        Self::sampled_by(Measuring::start)
    }

    /// What `measure` returns has runs measured until it is dropped.
    fn sampled_by<M: Send + 'static, E: Display + 'static>(
        mut measure: impl FnMut() -> Result<M, E> + Send + 'static,
    ) -> Result<Self, E> {
        let first = measure()?;
        let time = Arc::new(Time::default());
        let task = tokio::spawn(sample(first, measure, Arc::clone(&time)));
        Ok(Self {
            time,
            _kept: Kept::Sampled {
                _task: OwnedTask::new(&task),
            },
        })
    }

    /// For how long it has been measured so far.
    pub fn time(&self) -> Duration {
        let stretches = self.time.lock();
        stretches.ended + stretches.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

async fn sample<M, E: Display>(first: M, mut measure: impl FnMut() -> Result<M, E>, time: Arc<Time>) {
    let mut measuring = Some(first);
    loop {
        let stretch = measuring.is_some().then(|| Stretch::begin(&time));
        sleep(SAMPLE).await;
        drop((stretch, measuring));
        sleep(PERIOD - SAMPLE).await;
        let measured = measure();
        measuring = measured
            .inspect_err(|error| tracing::warn!(%error, "what the programs cost is not measured this time"))
            .ok();
    }
}

impl Time {
    fn lock(&self) -> MutexGuard<'_, Stretches> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Stretch<'a> {
    fn begin(time: &'a Time) -> Self {
        time.lock().since = Some(Instant::now());
        Self(time)
    }
}

impl Drop for Stretch<'_> {
    fn drop(&mut self) {
        let mut stretches = self.0.lock();
        if let Some(since) = stretches.since.take() {
            stretches.ended += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::yield_now;

    use super::*;

    const HALF: Duration = Duration::from_millis(500);

    /// A kernel that refuses every so many-eth request; how often it measures at once is how many share the result.
    fn measurement(refuses: usize) -> (Result<Measurement, &'static str>, Arc<()>) {
        let measured = Arc::new(());
        let (shared, asked) = (Arc::clone(&measured), AtomicUsize::new(0));
        let measurement = Measurement::sampled_by(move || {
            let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
            if number.is_multiple_of(refuses) {
                return Err("refused");
            }
            Ok(Arc::clone(&shared))
        });
        (measurement, measured)
    }

    /// The test and the task's closure have one share each.
    fn is_measuring(measured: &Arc<()>) -> bool {
        Arc::strong_count(measured) == 3
    }

    #[tokio::test(start_paused = true)]
    async fn one_second_out_of_thirty_is_measured() {
        let (measurement, measured) = measurement(usize::MAX);
        let measurement = measurement.expect("it is not refused");
        sleep(HALF).await;
        assert_eq!((is_measuring(&measured), measurement.time()), (true, HALF));
        sleep(SAMPLE).await;
        assert_eq!((is_measuring(&measured), measurement.time()), (false, SAMPLE));
        sleep(PERIOD - SAMPLE * 2).await;
        assert!(!is_measuring(&measured), "half a second before the next one");
        sleep(SAMPLE).await;
        assert!(is_measuring(&measured), "half a second after its begin");
        sleep(PERIOD * 10).await;
        assert_eq!(measurement.time(), SAMPLE * 11 + HALF);
        drop(measurement);
        yield_now().await;
        assert_eq!(Arc::strong_count(&measured), 1, "nothing is measured any more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_later_is_asked_for_again() {
        assert!(measurement(1).0.is_err(), "a kernel that never measures");
        let (measurement, measured) = measurement(2);
        let measurement = measurement.expect("the first one is not refused");
        sleep(PERIOD + HALF).await;
        assert_eq!((is_measuring(&measured), measurement.time()), (false, SAMPLE));
        sleep(PERIOD).await;
        assert_eq!(
            (is_measuring(&measured), measurement.time()),
            (true, SAMPLE + HALF)
        );
    }
}
