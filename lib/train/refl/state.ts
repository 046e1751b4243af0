import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ReflError } from '../../errors.ts';
import { openSafetensors } from '../../weights/safetensors.ts';
import { overwriteFrom, type Store, saveCheckpoint } from '../checkpoint.ts';
import { checkpointPath, checkResumable, newestCheckpoint, pruneCheckpoints, type RunKey } from '../resume.ts';
import type { Course, Session } from './session.ts';
import type { Observation } from './watch.ts';

/** What a run's states hold beside tensors. */
interface Progress {
  step: number;
  readonly course: Course;
  /** The first look at held-out images, against which later ones are held. */
  first?: Observation;
}

/** The states of a run in its folder: the newest two, and the last one that raised no alarm. */
export class States {
  readonly progress: Progress;
  private readonly folder: string;
  private readonly key: RunKey;
  private readonly parameters: Store;
  private readonly session: Session;

  constructor(folder: string, key: RunKey, parameters: Store, session: Session) {
    this.folder = folder;
    this.key = key;
    this.parameters = parameters;
    this.session = session;
    this.progress = { step: 0, course: session.course };
  }

  private get good(): string {
    return join(this.folder, 'good.safetensors');
  }

  /**
   * Takes the newest state over, if there is one; returns the options that were overridden. Throws ERR_CHECKPOINT where it belongs
   * to another run.
   */
  async resume(override: boolean): Promise<string[]> {
    const newest = await newestCheckpoint(this.folder);
    return newest ? this.take(newest, override) : [];
  }

  async save(): Promise<void> {
    await this.write(checkpointPath(this.folder, this.progress.step));
    await pruneCheckpoints(this.folder);
  }

  /** Keeps what is now as the state to roll back to. */
  keep(): Promise<void> {
    return this.write(this.good);
  }

  /**
   * Goes back to the state that was kept, on another branch. A process that is killed within it leaves either the state before,
   * which leads here again, or the one after. Throws ERR_ALARM where none was kept.
   */
  async rollBack(): Promise<void> {
    const { branch } = this.session.course;
    await this.take(this.good, true).catch((cause) => {
      throw new ReflError('ERR_ALARM', `${this.good} is not there to roll back to: ${cause.message}`, { cause });
    });
    this.session.course.branch = branch + 1;
    const kept = checkpointPath(this.folder, this.progress.step);
    await this.write(kept);
    for (const name of await readdir(this.folder)) {
      const path = join(this.folder, name);
      if (/^step-\d{8}\.safetensors$/.test(name) && path > kept) await rm(path);
    }
  }

  private async take(path: string, override: boolean): Promise<string[]> {
    const { metadata } = await openSafetensors(path);
    const overridden = checkResumable(path, metadata, this.key, override);
    await overwriteFrom(path, this.parameters, this.session.leaves, override);
    const { course, ...progress } = JSON.parse(metadata.progress) as Progress;
    Object.assign(this.progress, progress);
    Object.assign(this.session.course, course);
    return overridden;
  }

  private write(path: string): Promise<void> {
    const metadata = { progress: JSON.stringify(this.progress), ...this.key };
    return saveCheckpoint(path, this.parameters, this.session.leaves, metadata);
  }
}
