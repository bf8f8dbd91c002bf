import { type ShareHaError } from "../errors.js";
import { placeFields, placeText, type Place } from "./exit-code.js";
import { iscsiError } from "./iscsi-error.js";

/**
 * Exit code 24 stands for three things; the record tells two of them apart.
 * @param authMethod of the record that was used: `CHAP`, `None` or undefined
 */
export function chapError(place: Place, authMethod: string | undefined): ShareHaError {
  const fields = { ...placeFields(place), exitCode: 24 };
  return authMethod === "CHAP"
    ? iscsiError(
        "ERR_ISCSI_CHAP_WRONG",
        `${placeText(place)} failed: the target does not take the CHAP user and secret, or did not prove itself with the mutual ones`,
        {
          hint: "Give user and secret again (--chap-user, --chap-secret-file, and --chap-in-... for mutual CHAP) and compare them with the target's; it may also not list the name in /etc/iscsi/initiatorname.iscsi.",
          fields,
        },
      )
    : iscsiError(
        "ERR_ISCSI_CHAP_MISSING",
        `${placeText(place)} failed: the target wants CHAP, and the record has no user and secret`,
        {
          hint: "Give them: --chap-user NAME --chap-secret-file FILE. If the target wants none, it does not list the name in /etc/iscsi/initiatorname.iscsi.",
          fields,
        },
      );
}
