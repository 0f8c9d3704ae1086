"""Operations on a system under fault, for commands and pages alike."""
