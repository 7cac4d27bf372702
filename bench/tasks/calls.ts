/** The price of a call that does nothing, one at a time and with 1,000 in flight, beside what a program could use instead. */
import { get, init, remote, shutdown } from 'heliostat';
import { type Contestant, startContestants, WORKERS } from '../pools/contestants.ts';
import { median, summary, timeEach } from '../report.ts';
import { type Add, type Better, published, RAY, rival, withGoal } from './figures.ts';
import { collect, count, expect } from './sizes.ts';

const ROUNDS = count(7, 2);
const CALLS = count(1_000, 50);
const BATCHES = count(5, 1);
const IN_FLIGHT = 1_000;
const FLIGHT_GOAL = 100_000;

const echo = remote(function echo(value?: number) {
  return value;
});

const heliostat: Contestant = {
  name: 'Heliostat',
  call: (value) => echo.remote(value).get(),
  calls: (values) => get(values.map((value) => echo.remote(value))),
  end: shutdown,
};

/** One figure for each round; the median of them counts. */
interface Times {
  p50: number[];
  mean: number[];
  perSecond: number[];
}

async function checkAnswers({ name, calls }: Contestant): Promise<void> {
  const answers = await calls(Array.from({ length: IN_FLIGHT }, (_, i) => i));
  expect(`${name}: answers`, answers.length, IN_FLIGHT);
  for (const [i, answer] of answers.entries()) expect(`${name}: answer ${i}`, answer, i);
}

async function round(contestant: Contestant, times: Times): Promise<void> {
  await collect();
  await checkAnswers(contestant);
  const { p50, mean } = summary(await timeEach(CALLS, () => contestant.call()));
  times.p50.push(p50);
  times.mean.push(mean);
  const nothing = new Array<undefined>(IN_FLIGHT).fill(undefined);
  const batches = await timeEach(BATCHES, () => contestant.calls(nothing));
  times.perSecond.push((IN_FLIGHT * 1e6) / median(batches));
}

export async function measure(add: Add): Promise<void> {
  await init({ numCpus: WORKERS });
  const { piscina, threads, all } = await startContestants();
  const contestants = [heliostat, ...all];
  const times = new Map(contestants.map((one) => [one, { p50: [], mean: [], perSecond: [] } as Times]));
  for (let i = 0; i < ROUNDS; i++) {
    for (let turn = 0; turn < contestants.length; turn++) {
      const contestant = contestants[(i + turn) % contestants.length] as Contestant;
      await round(contestant, times.get(contestant) as Times);
    }
  }
  const of = (one: Contestant, measure: keyof Times) => median((times.get(one) as Times)[measure]);
  const table = (what: string, measure: keyof Times, unit: string, better: Better, goal: number, note: string) => {
    const ours = of(heliostat, measure);
    add(withGoal({ name: `${what}, Heliostat`, measured: ours, unit, better }, goal, note));
    for (const one of all) add(rival({ name: `  ${one.name}`, measured: of(one, measure), unit, better }, ours));
    return ours;
  };
  const least = (measure: keyof Times) => Math.min(of(piscina, measure), of(threads, measure));
  const best = Math.max(FLIGHT_GOAL, ...all.map((one) => of(one, 'perSecond')));
  const beside = 'goal: under piscina and bare messages of this run';
  table('no-op round trip, p50', 'p50', 'µs', 'less', least('p50'), beside);
  const mean = table('no-op round trip, mean', 'mean', 'µs', 'less', least('mean'), beside);
  add(published(RAY.oneAtATime, 1e6 / mean));
  const flight = `goal: ${FLIGHT_GOAL} and ahead of all others of this run`;
  const rate = table('no-op, 1,000 in flight', 'perSecond', '/s', 'more', best, flight);
  add(published(RAY.inFlight, rate));
  // Heliostat must end while others go on. How the others end is not measured: nothing waits for that.
  await heliostat.end();
  for (const one of all) void one.end();
}
