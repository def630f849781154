import { toCells } from './cells.js';
import { called } from './errors.js';
import { native } from './native.js';
import type { Conflict, ConflictResolver, Resolution } from './types.js';

function ready(name: string): ConflictResolver {
  return async (conflict: Conflict) => {
    const asked = JSON.stringify({
      ...conflict,
      key: [],
      localData: toCells(conflict.localData),
      remoteData: toCells(conflict.remoteData),
      openedAt: null,
      localTimestamp: conflict.localTimestamp?.getTime() ?? null,
      remoteTimestamp: conflict.remoteTimestamp?.getTime() ?? null,
    });
    return JSON.parse(await called(native().decide(name, asked))) as Resolution | null;
  };
}

/** Resolvers that are there already. */
export const ConflictResolvers = {
  /** What was written later wins; left open on devices that do not know when this user wrote. */
  newestWins: ready('newest'),
  /** What this user wrote wins. */
  localWins: ready('local'),
  /** What the server has wins. */
  remoteWins: ready('remote'),
  /**
   * For notifications: who has read, dismissed or archived one has done so for good, whichever
   * side it was; otherwise the later one wins. A notification that was deleted stays so.
   */
  notificationResolver: ready('notification'),
  /**
   * For projects and other things people write: something wins over nothing, otherwise the later
   * one wins. A project that somebody deleted while it was being edited comes back.
   */
  projectResolver: ready('project'),
  /** For settings: JSON objects are joined; other values from the one that wrote later. */
  settingsResolver: ready('settings'),
} as const;

/** The ready-made resolvers by what they are for. */
export const ConflictResolverFactory = {
  createNotificationResolver: (): ConflictResolver => ConflictResolvers.notificationResolver,
  createProjectResolver: (): ConflictResolver => ConflictResolvers.projectResolver,
  createSettingsResolver: (): ConflictResolver => ConflictResolvers.settingsResolver,
} as const;
