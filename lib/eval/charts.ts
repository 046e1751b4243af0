import { parse, View } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';

/** A share of a group, and who it is of. */
export interface ChartRow {
  readonly group: string;
  readonly judge: string;
  readonly share: number;
  readonly low: number;
  readonly high: number;
}

/** An SVG of shares with their intervals, side by side in each group, the groups in the order given; a line marks chance. */
export async function sharesChart(rows: readonly ChartRow[], title: string): Promise<string> {
  const groups = [...new Set(rows.map(({ group }) => group))];
  const judges = [...new Set(rows.map(({ judge }) => judge))];
  const x = {
    x: { field: 'group', type: 'nominal', sort: groups, title: null, axis: { labelAngle: 0 } },
    xOffset: { field: 'judge', sort: judges },
    color: { field: 'judge', type: 'nominal', sort: judges, title: null },
  } as const;
  const y = { type: 'quantitative' as const, scale: { domain: [0, 1] }, axis: { format: '.0%' }, title: null };
  const spec: TopLevelSpec = {
    title,
    width: { step: 22 },
    height: 220,
    // What was not counted has no share.
    data: { values: rows.filter(({ share }) => Number.isFinite(share)).map((row) => ({ ...row })) },
    layer: [
      {
        mark: { type: 'rule', strokeDash: [4, 4], color: '#888' },
        encoding: { y: { datum: 0.5, type: 'quantitative' } },
      },
      { mark: { type: 'rule', strokeWidth: 2 }, encoding: { ...x, y: { ...y, field: 'low' }, y2: { field: 'high' } } },
      { mark: { type: 'point', filled: true, size: 70 }, encoding: { ...x, y: { ...y, field: 'share' } } },
    ],
  };
  return render(spec);
}

/** A value that was measured along a run. */
export interface CurveRow {
  readonly run: string;
  readonly step: number;
  readonly value: number;
}

/** An SVG of runs' curves, the runs in the order given. */
export function curvesChart(rows: readonly CurveRow[], title: string): Promise<string> {
  const runs = [...new Set(rows.map(({ run }) => run))];
  return render({
    title,
    width: 280,
    height: 150,
    data: { values: rows.filter(({ value }) => Number.isFinite(value)).map((row) => ({ ...row })) },
    mark: { type: 'line', point: { size: 16 } },
    encoding: {
      x: { field: 'step', type: 'quantitative', title: null },
      y: { field: 'value', type: 'quantitative', title: null, scale: { zero: false } },
      color: { field: 'run', type: 'nominal', sort: runs, title: null, legend: { orient: 'bottom', columns: 2 } },
    },
  });
}

async function render(spec: TopLevelSpec): Promise<string> {
  const view = new View(parse(compile(spec).spec), { renderer: 'none' });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}
