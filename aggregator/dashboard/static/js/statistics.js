// How sure is a share? The 95 % interval from sampling alone: "these hosts and minutes". It says
// nothing about other minutes or hosts. No DOM here.
//
// Ten samples or more: normal on the logit scale. The relative variance of a share R from sampling
// is V_s = (1 - R) · period / (R · W), with n = W / period that is (1 - R) / (R n), and on the logit
// scale V_s / (1 - R)² = 1 / (n R (1 - R)).
// Fewer than ten: exact Poisson limits (Garwood 1936).

const Z95 = 1.959964;

const POISSON_95 = [
  [0, 3.6889],
  [0.0253, 5.5716],
  [0.2422, 7.2247],
  [0.6187, 8.7673],
  [1.0899, 10.2416],
  [1.6235, 11.6683],
  [2.2019, 13.0595],
  [2.8144, 14.4227],
  [3.4538, 15.7632],
  [4.1154, 17.0848],
];

export function interval(share, samples) {
  if (!(samples > 0)) return { low: 0, high: 1 };
  const hits = Math.round(share * samples);
  const misses = Math.round((1 - share) * samples);
  if (hits < 10) return poisson(hits, samples);
  if (misses < 10) {
    const rest = poisson(misses, samples);
    return { low: 1 - rest.high, high: 1 - rest.low };
  }
  const centre = Math.log(share / (1 - share));
  const half = Z95 / Math.sqrt(samples * share * (1 - share));
  const back = (v) => 1 / (1 + Math.exp(-v));
  return { low: back(centre - half), high: back(centre + half) };
}

function poisson(hits, samples) {
  const [low, high] = POISSON_95[hits];
  return { low: Math.min(1, low / samples), high: Math.min(1, high / samples) };
}

// The wider side of the interval, for "share ± x".
export function plusMinus(share, samples) {
  const { low, high } = interval(share, samples);
  return Math.max(share - low, high - share);
}

// Samples that carry this weight. Where hosts sample at different rates, a sample of the slowest one
// weighs most; counting all weight at its rate keeps the interval from looking too sure.
export function samplesBehind(totalNs, samples, slowestRateHz) {
  if (!slowestRateHz) return samples;
  return Math.min(samples, (totalNs / 1e9) * slowestRateHz);
}
